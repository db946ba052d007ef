package kube

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// SetupWhenAvailable calls setUp when all kinds are installed and may be listed: now, or
// later while the manager runs. The program must also work in clusters without these
// kinds, and under manifests without permissions for them. It logs once that it
// continues without.
func SetupWhenAvailable(ctx context.Context, m ctrl.Manager, kinds []client.ObjectList, maxInterval time.Duration, setUp func(context.Context) error) error {
	w := &kindWaiter{apiReader: m.GetAPIReader(), kinds: kinds, maxInterval: maxInterval, setUp: setUp}
	if w.available(ctx) {
		return setUp(ctx)
	}
	if err := m.Add(w); err != nil {
		return fmt.Errorf("waiting until %T can be listed: %w", kinds[0], err)
	}
	return nil
}

// kindWaiter calls setUp when all kinds can be listed.
type kindWaiter struct {
	apiReader   client.Reader
	kinds       []client.ObjectList
	maxInterval time.Duration
	setUp       func(context.Context) error
	logged      bool
}

// NeedLeaderElection returns false, so that a standby fills its caches too.
func (*kindWaiter) NeedLeaderElection() bool { return false }

// Start waits until the kinds are available, calls setUp and returns.
func (w *kindWaiter) Start(ctx context.Context) error {
	pause := wait.Backoff{Duration: min(time.Second, w.maxInterval), Factor: 1.5, Steps: 100, Cap: w.maxInterval, Jitter: 0.1}
	for !w.available(ctx) {
		timer := time.NewTimer(pause.Step())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
	klog.FromContext(ctx).Info("A missing API is available now", "kind", fmt.Sprintf("%T", w.kinds[0]))
	return w.setUp(ctx)
}

// available reports whether all kinds can be listed, and logs once why not.
func (w *kindWaiter) available(ctx context.Context) bool {
	for _, kind := range w.kinds {
		err := w.apiReader.List(ctx, kind, client.Limit(1))
		if err == nil {
			continue
		}
		if !w.logged {
			w.logged = true
			klog.FromContext(ctx).Info("Continuing without an API until it can be listed: "+remedy(err), "kind", fmt.Sprintf("%T", kind), "reason", err.Error())
		}
		return false
	}
	return true
}

func remedy(err error) string {
	switch {
	case meta.IsNoMatchError(err) || apierrors.IsNotFound(err):
		return "apply its CRDs, which \"holdfast crds\" prints"
	case apierrors.IsForbidden(err):
		return "grant this program's service account permission to list it"
	default:
		return "retrying"
	}
}
