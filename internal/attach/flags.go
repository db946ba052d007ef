package attach

import (
	"time"

	"github.com/spf13/pflag"
)

// AddFlags declares the options that are only about this controller.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.DefaultFSType, "default-fstype", "", "filesystem to tell the driver for volumes that name none; empty leaves it to the driver")
	fs.DurationVar(&o.Timeout, "volume-attachment-timeout", 15*time.Minute, "after how long a volume that is not attached is marked as failed; work on it goes on")
	fs.DurationVar(&o.SurveyInterval, "reconcile-sync", time.Minute, "how often to compare the driver's list of published volumes with the VolumeAttachments, for drivers that have one; 0 for never")
	fs.Int32Var(&o.PageSize, "max-entries", 0, "how many volumes to ask the driver for at a time in that; 0 leaves it to the driver")
	fs.BoolVar(&o.DetachDangling, "detach-dangling", false, "take volumes away from nodes that no VolumeAttachment tells of, instead of only reporting them")
}
