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
	ctrl "sigs.k8s.io/controller-runtime"
)

// Resources are some of an API group's.
type Resources struct {
	schema.GroupVersion
	Names []string // in the plural
}

// WaitInstalled waits until the API server serves some resources. The pause
// between two looks grows up to longest. That they are not there is told once.
func WaitInstalled(ctx context.Context, config *rest.Config, wanted Resources, longest time.Duration) error {
	api, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client for discovery: %w", err)
	}
	return wanted.wait(ctx, api, longest, func(missing string, err error) {
		klog.FromContext(ctx).Info("Waiting for an API to be installed: apply its CRDs, which the command crds prints",
			"group", wanted.String(), "missing", missing, "reason", err)
	})
}

// wait looks until the resources are served, and tells once what is missing.
func (r Resources) wait(ctx context.Context, api discovery.ServerResourcesInterface, longest time.Duration, tell func(missing string, err error)) error {
	pause := wait.Backoff{Duration: min(100*time.Millisecond, longest), Factor: 1.5, Steps: 100, Cap: longest, Jitter: 0.1}
	for told := false; ; told = true {
		missing, err := r.missing(api)
		if err == nil && missing == "" {
			return nil
		}
		if !told {
			tell(missing, err)
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

// WhenInstalled sets up what works on some resources: now if the API server
// serves them, else when it does, beside what the manager runs meanwhile. That it
// goes without them is told once.
func WhenInstalled(ctx context.Context, m ctrl.Manager, wanted Resources, longest time.Duration, setUp func(context.Context) error) error {
	api, err := discovery.NewDiscoveryClientForConfigAndClient(m.GetConfig(), m.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("making a client for discovery: %w", err)
	}
	missing, err := wanted.missing(api)
	if err == nil && missing == "" {
		return setUp(ctx)
	}
	klog.FromContext(ctx).Info("Going on without an API until it is installed: apply its CRDs, which the command crds prints",
		"group", wanted.String(), "missing", missing, "reason", err)
	if err := m.Add(&later{wanted: wanted, api: api, longest: longest, setUp: setUp}); err != nil {
		return fmt.Errorf("waiting for %s: %w", wanted.String(), err)
	}
	return nil
}

// later sets something up when some resources are served.
type later struct {
	wanted  Resources
	api     discovery.ServerResourcesInterface
	longest time.Duration
	setUp   func(context.Context) error
}

// NeedLeaderElection lets caches be filled before there is work to do.
func (*later) NeedLeaderElection() bool { return false }

// Start waits, sets up and returns.
func (l *later) Start(ctx context.Context) error {
	if err := l.wanted.wait(ctx, l.api, l.longest, func(string, error) {}); err != nil {
		return nil //nolint:nilerr // The manager ends.
	}
	klog.FromContext(ctx).Info("An API is installed now", "group", l.wanted.String())
	return l.setUp(ctx)
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
