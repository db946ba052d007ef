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

// SetupWhenAvailable sets up what works on some kinds: now if they are installed and may
// be listed, else when that is so, beside what the manager runs meanwhile. A
// program runs in clusters that know nothing of them, and under manifests that
// give no right to them; that it goes on without is told once.
func SetupWhenAvailable(ctx context.Context, m ctrl.Manager, kinds []client.ObjectList, longest time.Duration, setUp func(context.Context) error) error {
	l := &kindWaiter{live: m.GetAPIReader(), kinds: kinds, longest: longest, setUp: setUp}
	if l.served(ctx) {
		return setUp(ctx)
	}
	if err := m.Add(l); err != nil {
		return fmt.Errorf("waiting until %T can be listed: %w", kinds[0], err)
	}
	return nil
}

// kindWaiter sets something up when some kinds are served.
type kindWaiter struct {
	live    client.Reader
	kinds   []client.ObjectList
	longest time.Duration
	setUp   func(context.Context) error
	told    bool
}

// NeedLeaderElection lets caches be filled before there is work to do.
func (*kindWaiter) NeedLeaderElection() bool { return false }

// Start waits, sets up and returns.
func (l *kindWaiter) Start(ctx context.Context) error {
	pause := wait.Backoff{Duration: min(time.Second, l.longest), Factor: 1.5, Steps: 100, Cap: l.longest, Jitter: 0.1}
	for !l.served(ctx) {
		timer := time.NewTimer(pause.Step())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
	klog.FromContext(ctx).Info("What was missing is there", "kind", fmt.Sprintf("%T", l.kinds[0]))
	return l.setUp(ctx)
}

// served tells whether all kinds can be listed, and once why not.
func (l *kindWaiter) served(ctx context.Context) bool {
	for _, kind := range l.kinds {
		err := l.live.List(ctx, kind, client.Limit(1))
		if err == nil {
			continue
		}
		if !l.told {
			l.told = true
			klog.FromContext(ctx).Info("Going on without a kind until it can be listed: "+remedy(err), "kind", fmt.Sprintf("%T", kind), "reason", err.Error())
		}
		return false
	}
	return true
}

func remedy(err error) string {
	switch {
	case meta.IsNoMatchError(err) || apierrors.IsNotFound(err):
		return "apply its CRDs, which the command crds prints"
	case apierrors.IsForbidden(err):
		return "give this program's service account the rights"
	default:
		return "it is tried again"
	}
}
