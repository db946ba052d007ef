package app

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/utils/ptr"

	"github.com/prometheus/client_golang/prometheus"
)

// newCandidates returns candidates for one Lease. Its duration and the retry period
// are longer than any test.
func newCandidates(t *testing.T, names ...string) []*candidate {
	t.Helper()
	clients := newLeaseServer(t).CoordinationV1()
	options := &LeaderElectionOptions{Namespace: "ns", LeaseDuration: 3 * time.Hour, RenewDeadline: 2 * time.Hour, RetryPeriod: time.Hour}
	var all []*candidate
	for _, name := range names {
		all = append(all, &candidate{
			options: options, name: "lease", identity: name, leases: clients, watches: clients,
			watchdog: leaderelection.NewLeaderHealthzAdaptor(0),
		})
	}
	return all
}

// newLeaseServer returns a fake API server for Leases. A watch begins with the
// existing Lease, as with a real API server.
func newLeaseServer(t *testing.T) *fake.Clientset {
	t.Helper()
	clients := fake.NewClientset()
	clients.PrependWatchReactor("leases", func(action clienttesting.Action) (bool, watch.Interface, error) {
		namespace := action.GetNamespace()
		changes, err := clients.Tracker().Watch(action.GetResource(), namespace)
		if err != nil {
			return true, nil, err
		}
		events := make(chan watch.Event, 10)
		if existing, err := clients.Tracker().Get(action.GetResource(), namespace, "lease"); err == nil {
			events <- watch.Event{Type: watch.Added, Object: existing}
		}
		proxy := watch.NewProxyWatcher(events)
		go func() {
			defer changes.Stop()
			for {
				select {
				case change := <-changes.ResultChan():
					events <- change
				case <-proxy.StopChan():
					return
				}
			}
		}()
		return true, proxy, nil
	})
	return clients
}

// startCandidate runs a candidate; elected is closed when it has acquired the Lease.
func startCandidate(t *testing.T, e *candidate) (elected, ended chan struct{}, end context.CancelFunc) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	elected, ended = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		if err := e.lead(ctx, func() { close(elected) }); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { end(); <-ended })
	return elected, ended, end
}

func TestAReleasedLeaseIsAcquiredAtOnce(t *testing.T) {
	both := newCandidates(t, "first", "second")
	elected, ended, end := startCandidate(t, both[0])
	<-elected
	next, _, _ := startCandidate(t, both[1])
	end()
	<-ended
	select {
	case <-next:
		t.Error("the Lease was acquired before it was released")
	default:
	}
	if err := both[0].release(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-next
}

// After a crash the Lease is acquired when it expires, not a retry period later,
// which is an hour here.
func TestAnExpiredLeaseIsAcquiredAtOnce(t *testing.T) {
	next := newCandidates(t, "next")[0]
	now := metav1.NowMicro()
	_, err := next.leases.Leases("ns").Create(t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "lease"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To("crashed"), LeaseDurationSeconds: ptr.To[int32](1), AcquireTime: &now, RenewTime: &now,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	elected, _, _ := startCandidate(t, next)
	<-elected
}

func TestTheLeaseOfAnotherIsNotReleased(t *testing.T) {
	both := newCandidates(t, "first", "second")
	if err := both[1].release(t.Context()); err != nil {
		t.Errorf("releasing a Lease that does not exist: %v", err)
	}
	elected, _, _ := startCandidate(t, both[0])
	<-elected
	if err := both[1].release(t.Context()); err != nil {
		t.Fatal(err)
	}
	record, _, err := both[0].lock().Get(t.Context())
	if err != nil || record.HolderIdentity != "first" {
		t.Errorf("the holder is %q, %v", record.HolderIdentity, err)
	}
}

func TestEventsThatFreeALease(t *testing.T) {
	free, held := &coordinationv1.Lease{}, &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To("a")}}
	for name, tt := range map[string]struct {
		event watch.Event
		want  bool
	}{
		"the Lease is renewed":                    {watch.Event{Type: watch.Modified, Object: held}, false},
		"the Lease is released":                   {watch.Event{Type: watch.Modified, Object: free}, true},
		"the Lease was released before the watch": {watch.Event{Type: watch.Added, Object: free}, true},
		"the Lease is deleted":                    {watch.Event{Type: watch.Deleted, Object: held}, true},
		"the watch fails":                         {watch.Event{Type: watch.Error, Object: &metav1.Status{}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := isFreed(tt.event); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// A process that still believes to be the leader long after its Lease has expired is
// stuck. The liveness probe fails, so that the kubelet restarts it.
func TestAnExpiredLeaseIsUnhealthy(t *testing.T) {
	e := newCandidates(t, "first")[0]
	e.options = &LeaderElectionOptions{Namespace: "ns", LeaseDuration: 3 * time.Millisecond, RenewDeadline: 2 * time.Millisecond, RetryPeriod: time.Millisecond}
	ep := &endpoint{watchdog: e.watchdog}
	routes := ep.routes(EndpointOptions{MetricsPath: "/metrics"}, prometheus.NewRegistry())
	health := func() int {
		response := httptest.NewRecorder()
		routes.ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/healthz/leader-election", nil))
		return response.Code
	}
	if code := health(); code != http.StatusOK {
		t.Errorf("a process that does not lead is unhealthy: %d", code)
	}
	elected, ended, end := startCandidate(t, e)
	<-elected
	end() // It renews the Lease no more and does not notice that.
	<-ended
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		return health() == http.StatusInternalServerError, nil
	})
	if err != nil {
		t.Errorf("a process whose Lease has expired is healthy: %v", err)
	}
}

func TestReadinessFollowsTheCurrentTerm(t *testing.T) {
	e := &endpoint{watchdog: leaderelection.NewLeaderHealthzAdaptor(0)}
	response := httptest.NewRecorder()
	e.serveReadiness(response, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if response.Code != http.StatusServiceUnavailable {
		t.Errorf("before the first term: %d", response.Code)
	}
}
