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

// Resources are some of an API group's.
type Resources struct {
	schema.GroupVersion
	Names []string // in the plural
}

// WaitForResources waits until the API server serves some resources. The pause
// between two looks grows up to longest. That they are not there is told once.
func WaitForResources(ctx context.Context, config *rest.Config, wanted Resources, longest time.Duration) error {
	api, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client for discovery: %w", err)
	}
	pause := wait.Backoff{Duration: min(100*time.Millisecond, longest), Factor: 1.5, Steps: 100, Cap: longest, Jitter: 0.1}
	for told := false; ; told = true {
		missing, err := wanted.missing(api)
		if err == nil && missing == "" {
			return nil
		}
		if !told {
			klog.FromContext(ctx).Info("Waiting for an API to be installed: apply its CRDs, which the command crds prints",
				"group", wanted.String(), "missing", missing, "reason", err)
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

// missing names the resources that are not served.
func (r Resources) missing(api discovery.ServerResourcesInterface) (string, error) {
	list, err := api.ServerResourcesForGroupVersion(r.String())
	if err != nil {
		return strings.Join(r.Names, ", "), err
	}
	return strings.Join(slices.DeleteFunc(slices.Clone(r.Names), func(name string) bool {
		return slices.ContainsFunc(list.APIResources, func(a metav1.APIResource) bool { return a.Name == name })
	}), ", "), nil
}
