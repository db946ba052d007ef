package kube

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A MinResourceVersion tells which objects of a cache may be older than the moment at which
// this process began to lead. A cache may lag. What it shows of the time since
// then nobody but this process has acted upon; what it shows of the time before
// a predecessor may have ended long ago, so it has to be read from the API
// server itself before something is done that cannot be taken back.
//
// Versions of objects of one kind can be compared (KEP-5504).
type MinResourceVersion struct {
	live client.Reader
	kind client.ObjectList

	mu    sync.Mutex
	began string // the kind's version at that moment; empty until it is known
}

// NewMinResourceVersion makes a fence for the objects of a list's kind. Add it to the manager,
// which starts it when this process leads; that is the moment. It must not be
// asked before.
func NewMinResourceVersion(live client.Reader, kind client.ObjectList) *MinResourceVersion {
	return &MinResourceVersion{live: live, kind: kind}
}

// Start takes note of the moment. If that fails, the first question does.
func (f *MinResourceVersion) Start(ctx context.Context) error {
	if _, err := f.moment(ctx); err != nil {
		klog.FromContext(ctx).Info("It will be asked again what was there when this process began to lead", "reason", err.Error())
	}
	return nil
}

// IsOlder tells whether an object of the cache may be older than that.
func (f *MinResourceVersion) IsOlder(ctx context.Context, o client.Object) (bool, error) {
	began, err := f.moment(ctx)
	if err != nil {
		return false, err
	}
	order, err := resourceversion.CompareResourceVersion(o.GetResourceVersion(), began)
	if err != nil {
		return true, nil //nolint:nilerr // An API server that numbers otherwise: nothing can be told, so everything may be old.
	}
	return order <= 0, nil
}

func (f *MinResourceVersion) moment(ctx context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.began != "" {
		return f.began, nil
	}
	// Without a version in the request the answer is not older than the request.
	if err := f.live.List(ctx, f.kind, client.Limit(1)); err != nil {
		return "", fmt.Errorf("asking for the present version of %T: %w", f.kind, err)
	}
	f.began = f.kind.GetResourceVersion()
	return f.began, nil
}
