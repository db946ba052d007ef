package provision

import (
	"time"

	"github.com/spf13/pflag"
)

// AddFeatureGates adds the feature gates of this controller, all on by default. The
// parameter is an app.FeatureGates.
func (o *Options) AddFeatureGates(g interface {
	Add(name string, to *bool, usage string)
}) {
	g.Add("Topology", &o.Topology, "use the driver's topology, if it has one")
	g.Add("VolumeAttributesClass", &o.Attributes, "use the VolumeAttributesClass of a claim")
	g.Add("CrossNamespaceVolumeDataSource", &o.CrossNamespace, "fill volumes from snapshots and claims of other namespaces that grant it")
}

// AddFlags adds the flags of this controller.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Provisioner, "provisioner", "", "provisioner of the StorageClasses to serve; empty for the driver's name [PROVISIONER_NAME]")
	fs.StringSliceVar(&o.Classes, "storageclass-whitelist", nil, "names of the only StorageClasses to serve, comma-separated; empty for all [STORAGECLASS_WHITELIST]")
	fs.StringVar(&o.VolumeNamePrefix, "volume-name-prefix", "pvc", "prefix of the names of volumes, before the UID of the claim")
	fs.IntVar(&o.NameLength, "volume-name-uuid-length", wholeUID, "number of characters of the claim's UID, without dashes, in the names of volumes; -1 for the whole UID with dashes")
	fs.StringVar(&o.DefaultFSType, "default-fstype", "", "filesystem of volumes whose StorageClass has none; empty leaves it to the driver")
	fs.BoolVar(&o.ExtraCreateMetadata, "extra-create-metadata", false, "pass the names of claim, namespace and volume to the driver as parameters")
	fs.BoolVar(&o.StrictTopology, "strict-topology", false, "for a class with WaitForFirstConsumer, require the selected node's topology segment")
	fs.BoolVar(&o.ImmediateTopology, "immediate-topology", true, "for a class that binds immediately, pass all topology segments of the cluster to the driver")
	fs.BoolVar(&o.PreventModeConversion, "prevent-volume-mode-conversion", true, "reject to restore a snapshot to a volume of another mode, unless its content has the annotation that allows it")
	fs.DurationVar(&o.SweepInterval, "snapshot-orphan-sweep-interval", 5*time.Minute, "how often to check all snapshots for leftover finalizers of restores; 0 for never")
	fs.IntVar(&o.ProtectionWorkers, "cloning-protection-threads", 1, "number of workers that remove finalizers from the sources of finished restores and clones")
	fs.BoolVar(&o.ReadOnlyPublish, "controller-publish-readonly", false, "mark the volumes of claims that have only ReadOnlyMany as read-only")
	o.Node.AddFlags(fs)
}
