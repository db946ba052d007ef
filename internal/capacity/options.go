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

// Options configure which capacity is published, and how.
type Options struct {
	// Enabled publishes capacity at all.
	Enabled bool
	// Driver is the name of the CSI driver.
	Driver string
	// Provisioner is the provisioner of the classes; by default the driver's name.
	Provisioner string
	// Classes are the names of the classes to publish; empty means all.
	Classes []string
	// Namespace of the objects and of this process's pod.
	Namespace string
	// Pod is the name of this process's pod, which leads to the objects' owner.
	Pod string
	// Node is the only node whose capacity this process publishes, and Segment is its
	// topology segment; "" and nil for all nodes.
	Node    string
	Segment topology.Segment
	// Immediate publishes capacity for classes with binding mode Immediate too.
	Immediate bool
	// PollInterval is the interval between two GetCapacity calls for a pair.
	PollInterval time.Duration
	// Topology uses the driver's topology, if it has one. Otherwise the cluster is one
	// segment.
	Topology bool
	// OwnerLevel is how many levels above the pod the objects' owner is; -1 for none.
	OwnerLevel int
	// Workers is the number of pairs that are reconciled concurrently.
	Workers int
	// QPS and Burst limit writes of objects; 0 is unlimited.
	QPS   float32
	Burst int
	// RetryStart and RetryMax are the shortest and the longest pause before a retry,
	// which is never longer than the poll interval.
	RetryStart, RetryMax time.Duration
}

// AddFlags declares the flags that only this controller has.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.Enabled, "enable-capacity", false, "publish the driver's capacity as CSIStorageCapacity objects, in the namespace of the pod [NAMESPACE]")
	fs.BoolVar(&o.Immediate, "capacity-for-immediate-binding", false, "publish capacity for classes with immediate binding too; the scheduler does not need it")
	fs.DurationVar(&o.PollInterval, "capacity-poll-interval", time.Minute, "how often GetCapacity is called for each class and segment")
	fs.IntVar(&o.OwnerLevel, "capacity-ownerref-level", 1, "owner of the objects, with which they are deleted: 0 the pod of this process, 1 the controller of the pod, 2 the controller of that; -1 none [POD_NAME]")
	fs.IntVar(&o.Workers, "capacity-threads", 1, "number of concurrent GetCapacity calls")
	fs.Float32Var(&o.QPS, "kube-api-capacity-qps", 0, "limit of writes per second of CSIStorageCapacity objects; 0 leaves it to API Priority and Fairness")
	fs.IntVar(&o.Burst, "kube-api-capacity-burst", 0, "burst above --kube-api-capacity-qps")
}

// Validate returns all mistakes at once.
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

// isSelected reports whether the flags select a class.
func (o *Options) isSelected(class *storagev1.StorageClass) bool {
	waits := class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	return class.Provisioner == o.Provisioner && (waits || o.Immediate) &&
		(len(o.Classes) == 0 || slices.Contains(o.Classes, class.Name))
}

// maxRetry is the longest pause before a retry.
func (o *Options) maxRetry() time.Duration {
	return max(o.RetryStart, min(o.RetryMax, o.PollInterval))
}
