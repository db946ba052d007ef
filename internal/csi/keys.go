package csi

import "fmt"

// The keys of calls: at most one call with a key is sent at a time. The CSI
// specification ("Concurrency") makes the caller responsible for having at most one
// call in flight per volume, and the snapshot calls require the same per snapshot.
//
// A volume has its name as key until CreateVolume has returned its id, and the id from
// then on. Snapshots and groups of snapshots work the same way. The prefixes and the
// quotes keep the six kinds of keys distinct for any id. A call about a snapshot does
// not lock its source volume, nor a clone its source, nor a group its volumes or
// snapshots: the specification does not require it, and a detach must not wait for a
// copy.
func volumeNamed(name string) string   { return fmt.Sprintf("volume named %q", name) }
func volumeID(id string) string        { return fmt.Sprintf("volume %q", id) }
func snapshotNamed(name string) string { return fmt.Sprintf("snapshot named %q", name) }
func snapshotID(id string) string      { return fmt.Sprintf("snapshot %q", id) }
func groupNamed(name string) string    { return fmt.Sprintf("group snapshot named %q", name) }
func groupID(id string) string         { return fmt.Sprintf("group snapshot %q", id) }
