package groupsnapshot

import (
	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Options configure csi-snapshotter's support of group snapshots.
type Options struct {
	Enabled bool
	Naming  snapshot.Naming
}

// AddFlags declares the flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Naming.Prefix, "groupsnapshot-name-prefix", "groupsnapshot", "prefix of the names of group snapshots at the driver")
	fs.IntVar(&o.Naming.Length, "groupsnapshot-name-uuid-length", -1,
		"how many characters of the group snapshot's UID are in its name at the driver, 8 to 32; -1 for the whole UID with dashes")
}

// AddFeatureGates declares the gate.
func (o *Options) AddFeatureGates(g interface {
	Add(name string, to *bool, usage string)
}) {
	g.Add("CSIVolumeGroupSnapshot", &o.Enabled, "create group snapshots")
}
