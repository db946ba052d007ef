package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// Resources are resources of an API group.
type Resources struct {
	schema.GroupVersion
	Names []string // in the plural
}

// WaitForResources waits until the API server serves resources. The pause between two
// requests grows up to maxInterval. It logs once that resources are missing.
func WaitForResources(ctx context.Context, config *rest.Config, resources Resources, maxInterval time.Duration) error {
	api, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return fmt.Errorf("creating a discovery client: %w", err)
	}
	pause := wait.Backoff{Duration: min(100*time.Millisecond, maxInterval), Factor: 1.5, Steps: 100, Cap: maxInterval, Jitter: 0.1}
	for logged := false; ; logged = true {
		missing, err := resources.missing(api)
		if err == nil && missing == "" {
			return nil
		}
		if !logged {
			klog.FromContext(ctx).Info("Waiting for an API to be installed: apply its CRDs, which \"holdfast crds\" prints",
				"group", resources.String(), "missing", missing, "reason", err)
		}
		timer := time.NewTimer(pause.Step())
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// missing returns the names of the resources that the API server does not serve.
func (r Resources) missing(api discovery.ServerResourcesInterface) (string, error) {
	list, err := api.ServerResourcesForGroupVersion(r.String())
	if err != nil {
		return strings.Join(r.Names, ", "), err
	}
	return strings.Join(slices.DeleteFunc(slices.Clone(r.Names), func(name string) bool {
		return slices.ContainsFunc(list.APIResources, func(a metav1.APIResource) bool { return a.Name == name })
	}), ", "), nil
}
