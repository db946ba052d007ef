package kube

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A MinResourceVersion is the resourceVersion of a kind at the start of this process's
// leadership term. The cache may lag. Only this process acts on objects with a newer
// version. The cached version of another object may be outdated, because the previous
// leader may have acted on the object since. Before anything irreversible is done, such
// an object must be read from the API server.
//
// Resource versions of one kind can be compared (KEP-5504).
type MinResourceVersion struct {
	apiReader client.Reader
	kind      client.ObjectList

	mu  sync.Mutex
	min string // empty until it has been read
}

// NewMinResourceVersion returns the MinResourceVersion of a list's kind. Add it to the
// manager, which starts it at the start of the leadership term. It must not be used
// before.
func NewMinResourceVersion(apiReader client.Reader, kind client.ObjectList) *MinResourceVersion {
	return &MinResourceVersion{apiReader: apiReader, kind: kind}
}

// Start reads the version. If that fails, the first call of IsOlder retries it.
func (v *MinResourceVersion) Start(ctx context.Context) error {
	if _, err := v.get(ctx); err != nil {
		klog.FromContext(ctx).Info("Cannot read the resource version at the start of the leadership term; retrying at the first use", "reason", err.Error())
	}
	return nil
}

// IsOlder reports whether a cached object may be older than the leadership term.
func (v *MinResourceVersion) IsOlder(ctx context.Context, o client.Object) (bool, error) {
	minVersion, err := v.get(ctx)
	if err != nil {
		return false, err
	}
	order, err := resourceversion.CompareResourceVersion(o.GetResourceVersion(), minVersion)
	if err != nil {
		return true, nil //nolint:nilerr // Versions that are not comparable: any object may be old.
	}
	return order <= 0, nil
}

func (v *MinResourceVersion) get(ctx context.Context) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.min != "" {
		return v.min, nil
	}
	// Without a resourceVersion in the request, the API server responds with the most
	// recent one.
	if err := v.apiReader.List(ctx, v.kind, client.Limit(1)); err != nil {
		return "", fmt.Errorf("reading the current resource version of %T: %w", v.kind, err)
	}
	v.min = v.kind.GetResourceVersion()
	return v.min, nil
}
