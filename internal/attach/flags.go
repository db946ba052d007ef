package attach

import (
	"time"

	"github.com/spf13/pflag"
)

// AddFeatureGates declares what this controller does unless it is told not to. The
// first matches app.FeatureGates.
func (o *Options) AddFeatureGates(g interface {
	Add(name string, to *bool, usage string)
}) {
	g.Add("MutableCSINodeAllocatableCount", &o.ErrorCodes, "put the driver's code into the errors of VolumeAttachments, for the kubelet and the scheduler to act upon")
}

// AddFlags declares the options that are only about this controller.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.DefaultFSType, "default-fstype", "", "filesystem to tell the driver for volumes that name none; empty leaves it to the driver")
	fs.DurationVar(&o.Timeout, "volume-attachment-timeout", 15*time.Minute, "after how long a volume that is not attached is marked as failed; work on it goes on")
	fs.DurationVar(&o.DriftCheckInterval, "reconcile-sync", time.Minute, "how often to compare the driver's list of published volumes with the VolumeAttachments, for drivers that have one; 0 for never")
	fs.Int32Var(&o.PageSize, "max-entries", 0, "how many volumes to ask the driver for at a time in that; 0 leaves it to the driver")
	fs.BoolVar(&o.DetachDangling, "detach-dangling", false, "detach volumes of this cluster from nodes where no VolumeAttachment tells of them, instead of only reporting them")

	for name, why := range map[string]string{
		"resync":              "every change is watched, and what fails is tried again",
		"max-grpc-log-length": "messages to and from the driver are not logged",
	} {
		fs.String(name, "", "")
		if err := fs.MarkDeprecated(name, why); err != nil {
			panic(err) // The flag is declared one line above.
		}
	}
}
