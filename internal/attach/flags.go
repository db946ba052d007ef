package attach

import (
	"time"

	"github.com/spf13/pflag"
)

// AddFeatureGates declares the feature gates of this controller. Its parameter
// is implemented by app.FeatureGates.
func (o *Options) AddFeatureGates(g interface {
	Add(name string, to *bool, usage string)
}) {
	g.Add("MutableCSINodeAllocatableCount", &o.ErrorCodes, "put the driver's error code into the status of VolumeAttachments, for the kubelet and the scheduler")
}

// AddFlags declares the flags that only this controller has.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.DefaultFSType, "default-fstype", "", "filesystem type of volumes that name none; empty leaves the choice to the driver")
	fs.DurationVar(&o.Timeout, "volume-attachment-timeout", 15*time.Minute, "how long attaching may take until the status says that it has timed out; the attacher keeps trying")
	fs.DurationVar(&o.DriftCheckInterval, "reconcile-sync", time.Minute, "how often to compare the driver's list of published volumes with the VolumeAttachments, if the driver has one; 0 disables this")
	fs.Int32Var(&o.PageSize, "max-entries", 0, "maximum number of volumes per page of that list; 0 leaves it to the driver")
	fs.BoolVar(&o.DetachDangling, "detach-dangling", false, "detach volumes of this cluster that are attached to a node without a VolumeAttachment, instead of only reporting them")
}
