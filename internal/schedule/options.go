package schedule

import (
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// Options say how schedules are served. They are the same for all.
type Options struct {
	// Namespaces are those whose schedules are served; none for all.
	Namespaces []string
	// Workers is how many schedules are worked on at a time.
	Workers int
	// RetryStart and RetryMax bound the pause before the next try of what failed.
	RetryStart, RetryMax time.Duration
	// CRDCheckInterval is how often the kinds are looked for that are not installed; a
	// minute if 0.
	CRDCheckInterval time.Duration
	// Clock tells the API server's time. Without it nothing is removed by age.
	Clock *kube.Clock
}

// CacheOptions narrow what the manager's cache holds of schedules to those that
// are served.
func CacheOptions(o *Options, into *cache.Options) {
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
	into.ByObject[&v1alpha1.SnapshotSchedule{}] = cache.ByObject{Namespaces: served}
}

// isServed tells whether the schedules of a namespace are served.
func (o *Options) isServed(namespace string) bool {
	return len(o.Namespaces) == 0 || slices.Contains(o.Namespaces, namespace)
}
