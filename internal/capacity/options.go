package capacity

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/holdfast-io/holdfast/internal/topology"
)

// Options say which capacity is published, and how.
type Options struct {
	// Enabled is whether any is.
	Enabled bool
	// Driver is the CSI driver's own name.
	Driver string
	// Provisioner is the name that classes carry; by default the driver's.
	Provisioner string
	// Classes are the ones that may be served; empty means all.
	Classes []string
	// Namespace is where the objects are, and this process's pod.
	Namespace string
	// Pod is the name of this process's pod, from which owners are found.
	Pod string
	// Node is the only node whose capacity this process publishes, and Segment
	// where its driver has room; "" and nil for all.
	Node    string
	Segment topology.Segment
	// Immediate is whether classes count that do not wait for the first consumer.
	Immediate bool
	// PollInterval is how often the driver is asked if nothing happens.
	PollInterval time.Duration
	// Topology is whether the driver's topology counts, if it has one. Otherwise
	// the cluster is one segment.
	Topology bool
	// OwnerLevel is how far up from the pod the objects' owner is; -1 for none.
	OwnerLevel int
	// Workers is how many pairs are worked on at a time.
	Workers int
	// QPS and Burst limit the writing of objects; 0 is no limit.
	QPS   float32
	Burst int
	// RetryStart and RetryMax bound the pause before a failed pair's next try,
	// which is never longer than the poll interval.
	RetryStart, RetryMax time.Duration
}

// AddFlags declares the options that are only about this controller.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.Enabled, "enable-capacity", false, "publish where the driver has how much room, as CSIStorageCapacity objects in the own namespace [NAMESPACE]")
	fs.BoolVar(&o.Immediate, "capacity-for-immediate-binding", false, "publish it for classes that bind immediately too; the scheduler does not need it")
	fs.DurationVar(&o.PollInterval, "capacity-poll-interval", time.Minute, "how often the driver is asked for its capacity when nothing happens")
	fs.IntVar(&o.OwnerLevel, "capacity-ownerref-level", 1, "what owns the objects, and takes them along when it is deleted: 0 the own pod, 1 what controls the pod, 2 what controls that; -1 nothing [POD_NAME]")
	fs.IntVar(&o.Workers, "capacity-threads", 1, "how many capacities are asked for at a time")
	fs.Float32Var(&o.QPS, "kube-api-capacity-qps", 0, "limit of writes a second of CSIStorageCapacity objects; 0 leaves it to the API server's own fairness")
	fs.IntVar(&o.Burst, "kube-api-capacity-burst", 0, "how many writes may exceed --kube-api-capacity-qps for a moment")
}

// Validate tells all that is wrong at once.
func (o *Options) Validate() error {
	if !o.Enabled {
		return nil
	}
	var errs []error
	if o.PollInterval <= 0 {
		errs = append(errs, fmt.Errorf("--capacity-poll-interval %s must be positive", o.PollInterval))
	}
	if o.Workers < 1 {
		errs = append(errs, fmt.Errorf("--capacity-threads %d: at least 1 is needed", o.Workers))
	}
	if o.OwnerLevel < -1 {
		errs = append(errs, fmt.Errorf("--capacity-ownerref-level %d: -1 is the lowest", o.OwnerLevel))
	}
	if o.OwnerLevel >= 0 && o.Pod == "" {
		errs = append(errs, fmt.Errorf("--capacity-ownerref-level %d: set POD_NAME to the pod's metadata.name, or the level to -1", o.OwnerLevel))
	}
	return errors.Join(errs...)
}

// isSelected tells whether capacity for a class is published.
func (o *Options) isSelected(class *storagev1.StorageClass) bool {
	late := class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	return class.Provisioner == o.Provisioner && (late || o.Immediate) &&
		(len(o.Classes) == 0 || slices.Contains(o.Classes, class.Name))
}

// maxRetry is the pause after many failures.
func (o *Options) maxRetry() time.Duration {
	return max(o.RetryStart, min(o.RetryMax, o.PollInterval))
}
