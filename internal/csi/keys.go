package csi

import "fmt"

// What a call is about: one at a time is sent about each. The CSI specification
// ("Concurrency") makes the caller responsible for at most one call in flight
// per volume, and its snapshot calls say the same per snapshot.
//
// A volume is known by its name until CreateVolume has
// answered and by its id from then on, and a snapshot or a group of them
// likewise; words and quotes keep the six apart, whatever drivers call things. A
// call about a snapshot does not hold its source volume, nor a clone its source,
// nor a group its volumes or snapshots: the specification does not ask for it,
// and a detach must not wait for a copy.
func volumeNamed(name string) string   { return fmt.Sprintf("volume named %q", name) }
func volumeID(id string) string        { return fmt.Sprintf("volume %q", id) }
func snapshotNamed(name string) string { return fmt.Sprintf("snapshot named %q", name) }
func snapshotID(id string) string      { return fmt.Sprintf("snapshot %q", id) }
func groupNamed(name string) string    { return fmt.Sprintf("group snapshot named %q", name) }
func groupID(id string) string         { return fmt.Sprintf("group snapshot %q", id) }
