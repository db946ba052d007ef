package app

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// settle is long enough for a mistake to show.
const settle = 50 * time.Millisecond

// leaseServer is a fake API server whose Lease cannot be renewed while renewalFails
// is set. It still accepts a release.
type leaseServer struct {
	*fake.Clientset
	renewalFails atomic.Bool
}

func newProgram(t *testing.T, o LeaderElectionOptions, runnables ...manager.Runnable) (*Program, *leaseServer) {
	t.Helper()
	server := &leaseServer{Clientset: newLeaseServer(t)}
	server.PrependReactor("update", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
		lease := action.(clienttesting.UpdateAction).GetObject().(*coordinationv1.Lease)
		if server.renewalFails.Load() && ptr.Deref(lease.Spec.HolderIdentity, "") != "" {
			return true, nil, errors.New("the API server is unreachable")
		}
		return false, nil, nil
	})
	o.Enabled, o.Namespace, o.Release = true, "ns", true
	p := &Program{
		Leader: o, LeaseName: "lease",
		Setup: func(_ context.Context, m ctrl.Manager, _ *kube.Events) error {
			for _, r := range runnables {
				if err := m.Add(r); err != nil {
					return err
				}
			}
			return nil
		},
		config: &rest.Config{Host: "127.0.0.1:1"}, scheme: runtime.NewScheme(),
		endpoint: &endpoint{watchdog: leaderelection.NewLeaderHealthzAdaptor(0)},
	}
	p.candidate = &candidate{
		options: &p.Leader, name: "lease", identity: "this", watchdog: p.endpoint.watchdog,
		leases: server.CoordinationV1(), watches: server.CoordinationV1(),
	}
	return p, server
}

// start runs the terms of a program until stop is called.
func start(t *testing.T, p *Program) (ended chan error, stop context.CancelFunc) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended = make(chan error, 1)
	finished := make(chan struct{})
	go func() { defer close(finished); ended <- p.runTerms(ctx) }()
	t.Cleanup(func() { stop(); <-finished })
	return ended, stop
}

func (s *leaseServer) holder(t *testing.T) string {
	t.Helper()
	lease, err := s.CoordinationV1().Leases("ns").Get(context.WithoutCancel(t.Context()), "lease", metav1.GetOptions{})
	if err != nil {
		t.Error(err)
		return ""
	}
	return ptr.Deref(lease.Spec.HolderIdentity, "")
}

func longDurations() LeaderElectionOptions {
	return LeaderElectionOptions{LeaseDuration: 3 * time.Hour, RenewDeadline: 2 * time.Hour, RetryPeriod: time.Hour}
}

// reconcileOnce is a controller that runs one reconciliation in each term.
func reconcileOnce(f func(ctx context.Context)) manager.Runnable {
	return manager.RunnableFunc(func(ctx context.Context) error {
		r := kube.DrainOnStop(reconcile.TypedFunc[string](func(ctx context.Context, _ string) (reconcile.Result, error) {
			f(ctx)
			return reconcile.Result{}, nil
		}))
		_, err := r.Reconcile(ctx, "request")
		<-ctx.Done()
		return err
	})
}

func TestRunningWorkEndsBeforeTheLeaseIsReleased(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	var server *leaseServer
	o := longDurations()
	o.RetryPeriod = 5 * time.Millisecond // A leader renews so often.
	p, server := newProgram(t, o, reconcileOnce(func(ctx context.Context) {
		close(started)
		<-finish
		if err := ctx.Err(); err != nil {
			t.Errorf("the work was cancelled: %v", err)
		}
		if got := server.holder(t); got != "this" {
			t.Errorf("the Lease is held by %q while work runs", got)
		}
	}))
	ended, stop := start(t, p)
	<-started
	stop()
	before := len(server.Actions())
	time.Sleep(settle)
	if len(server.Actions()) == before {
		t.Error("the Lease is not renewed while work runs")
	}
	close(finish)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := server.holder(t); got != "" {
		t.Errorf("the Lease is still held by %q", got)
	}
}

func TestALostLeaseEndsAllWorkBeforeTheNextTerm(t *testing.T) {
	terms, finish := make(chan struct{}), make(chan struct{})
	var running atomic.Int32
	var server *leaseServer
	o := LeaderElectionOptions{LeaseDuration: 300 * time.Millisecond, RenewDeadline: 200 * time.Millisecond, RetryPeriod: 20 * time.Millisecond}
	p, server := newProgram(t, o, reconcileOnce(func(ctx context.Context) {
		if n := running.Add(1); n != 1 {
			t.Errorf("work of %d terms runs at the same time", n)
		}
		defer running.Add(-1)
		terms <- struct{}{}
		select {
		case <-finish:
			return
		case <-ctx.Done():
		}
		if cause := context.Cause(ctx); !errors.Is(cause, errLeaseLost) {
			t.Errorf("the work was cancelled because of %v", cause)
		}
		server.renewalFails.Store(false)
		time.Sleep(settle)
		if got := server.holder(t); got != "this" {
			t.Errorf("the Lease is held by %q while work runs", got)
		}
	}))
	ended, stop := start(t, p)
	<-terms
	server.renewalFails.Store(true)
	select {
	case <-terms:
	case err := <-ended:
		t.Fatalf("the program ended when it lost the Lease: %v", err)
	}
	close(finish)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAStandbyWarmsUpAndDoesNotWork(t *testing.T) {
	w := newWorker()
	p, server := newProgram(t, longDurations(), w)
	now := metav1.NowMicro()
	_, err := server.CoordinationV1().Leases("ns").Create(t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "lease"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To("another"), LeaseDurationSeconds: ptr.To[int32](3600), AcquireTime: &now, RenewTime: &now,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ended, stop := start(t, p)
	<-w.warm
	time.Sleep(settle)
	select {
	case <-w.started:
		t.Error("a standby works")
	default:
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := server.holder(t); got != "another" {
		t.Errorf("the Lease is held by %q", got)
	}
}

// unsyncedCache is a cache that is never synced, as if the API server rejected its
// requests. The manager starts it as one of its caches.
type unsyncedCache struct{ cache.Cache }

func (unsyncedCache) NeedLeaderElection() bool        { return false }
func (c unsyncedCache) GetCache() cache.Cache         { return c }
func (unsyncedCache) Start(ctx context.Context) error { <-ctx.Done(); return nil }
func (unsyncedCache) WaitForCacheSync(ctx context.Context) bool {
	<-ctx.Done()
	return false
}

func TestAReplicaWithoutCachesDoesNotCompete(t *testing.T) {
	p, server := newProgram(t, longDurations(), unsyncedCache{})
	ended, stop := start(t, p)
	time.Sleep(settle)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if slices.ContainsFunc(server.Actions(), func(a clienttesting.Action) bool { return a.GetVerb() == "create" }) {
		t.Error("it competed for the Lease")
	}
}

func TestTheLeaseIsNotReleasedWhileWorkIsStuck(t *testing.T) {
	p, server := newProgram(t, longDurations())
	term := p.newTerm(t.Context())
	synced := make(chan struct{})
	close(synced)
	loop := term.startLeaseLoop(t.Context(), synced)
	<-term.elected
	if err := term.end(t.Context(), context.DeadlineExceeded, loop); !errors.Is(err, errWorkStuck) {
		t.Errorf("the term ended with %v", err)
	}
	if got := server.holder(t); got != "this" {
		t.Errorf("the Lease is held by %q", got)
	}
}
