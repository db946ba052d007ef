package provision

import (
	"time"

	"github.com/spf13/pflag"
)

// AddFeatureGates declares what this controller does unless it is told not to. The
// first matches app.FeatureGates.
func (o *Options) AddFeatureGates(g interface {
	Add(name string, to *bool, usage string)
}) {
	g.Add("Topology", &o.Topology, "follow the driver's topology, if it has one")
	g.Add("VolumeAttributesClass", &o.Attributes, "follow the VolumeAttributesClass of a claim")
	g.Add("CrossNamespaceVolumeDataSource", &o.CrossNamespace, "fill volumes from snapshots and claims of other namespaces that grant it")
}

// AddFlags declares the options that are only about this controller.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Provisioner, "provisioner", "", "name that the StorageClasses to be served carry; empty for the driver's own name [PROVISIONER_NAME]")
	fs.StringSliceVar(&o.Classes, "storageclass-whitelist", nil, "names of the only StorageClasses that may be served, comma-separated; empty for all [STORAGECLASS_WHITELIST]")
	fs.StringVar(&o.VolumeNamePrefix, "volume-name-prefix", "pvc", "what names of volumes begin with, before the UID of the claim")
	fs.IntVar(&o.NameLength, "volume-name-uuid-length", wholeUID, "how many characters of the claim's UID, without dashes, names of volumes end with; -1 for all, with dashes")
	fs.StringVar(&o.DefaultFSType, "default-fstype", "", "filesystem of volumes whose StorageClass gives none; empty leaves it to the driver")
	fs.BoolVar(&o.ExtraCreateMetadata, "extra-create-metadata", false, "tell the driver the names of claim, namespace and volume, as parameters")
	fs.BoolVar(&o.StrictTopology, "strict-topology", false, "for a class that waits for its first consumer, ask for the selected node's topology segment only")
	fs.BoolVar(&o.ImmediateTopology, "immediate-topology", true, "for a class that binds immediately, tell the driver all topology segments of the cluster")
	fs.BoolVar(&o.PreventModeConversion, "prevent-volume-mode-conversion", true, "refuse to restore a snapshot to a volume of another mode, unless its content has the annotation that allows it")
	fs.DurationVar(&o.SweepInterval, "snapshot-orphan-sweep-interval", 5*time.Minute, "how often to look for snapshots that are protected though nothing is restored from them; 0 for never")
	fs.IntVar(&o.ProtectionWorkers, "cloning-protection-threads", 1, "how many sources of finished restores and clones are freed at a time")
	fs.BoolVar(&o.ReadOnlyPublish, "controller-publish-readonly", false, "mark volumes of claims that are ReadOnlyMany only as read-only")
	o.Node.AddFlags(fs)
}
