package schedule

import (
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// Options configure the controller.
type Options struct {
	// Namespaces limits the controller to the schedules of some namespaces. Empty means all.
	Namespaces []string
	// Workers is the number of workers.
	Workers int
	// RetryStart and RetryMax bound the exponential backoff.
	RetryStart, RetryMax time.Duration
	// CRDCheckInterval is how often the kinds are looked for that are not installed; a
	// minute if 0.
	CRDCheckInterval time.Duration
	// Clock has the API server's time. Without it, no child is deleted because of its age.
	Clock *kube.Clock
}

// SnapshotCacheOptions limits the manager's cache to the SnapshotSchedules of the served
// namespaces.
func SnapshotCacheOptions(o *Options, into *cache.Options) { limitCache(snapshotKind{}, o, into) }

// CheckpointCacheOptions limits the manager's cache to the CheckpointSchedules of the served
// namespaces.
func CheckpointCacheOptions(o *Options, into *cache.Options) { limitCache(checkpointKind{}, o, into) }

func limitCache(k kind, o *Options, into *cache.Options) {
	if len(o.Namespaces) == 0 {
		return
	}
	served := map[string]cache.Config{}
	for _, namespace := range o.Namespaces {
		served[namespace] = cache.Config{}
	}
	if into.ByObject == nil {
		into.ByObject = map[client.Object]cache.ByObject{}
	}
	into.ByObject[k.newSchedule()] = cache.ByObject{Namespaces: served}
}

// isServed reports whether the schedules of a namespace are served.
func (o *Options) isServed(namespace string) bool {
	return len(o.Namespaces) == 0 || slices.Contains(o.Namespaces, namespace)
}
