package groupsnapshot

import (
	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// Options say whether the driver's half works on groups, and how they are called
// at the driver.
type Options struct {
	Enabled bool
	Naming  snapshot.Naming
}

// AddFlags declares the flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Naming.Prefix, "groupsnapshot-name-prefix", "groupsnapshot", "what the driver's names of group snapshots begin with")
	fs.IntVar(&o.Naming.Length, "groupsnapshot-name-uuid-length", -1,
		"how much of the group snapshot's UID is in the driver's name of it, 8 to 32; -1 for all, with its dashes")
}

// AddFeatureGates declares the gate.
func (o *Options) AddFeatureGates(g interface {
	Add(name string, to *bool, usage string)
}) {
	g.Add("CSIVolumeGroupSnapshot", &o.Enabled, "make group snapshots")
}
