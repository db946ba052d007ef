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
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/utils/ptr"

	"github.com/prometheus/client_golang/prometheus"
)

// candidates compete for one Lease. Nobody lives to see it expire, or the end
// of the retry period.
func candidates(t *testing.T, names ...string) []*election {
	t.Helper()
	clients := server(t)
	options := &LeaderElectionOptions{Namespace: "ns", LeaseDuration: 3 * time.Hour, RenewDeadline: 2 * time.Hour, RetryPeriod: time.Hour}
	var all []*election
	for _, name := range names {
		all = append(all, &election{
			options: options, name: "lease", identity: name, leases: clients, watches: clients,
			watchdog: leaderelection.NewLeaderHealthzAdaptor(0),
		})
	}
	return all
}

// server is an API server of Leases. Unlike the fake one, and like a real one, it
// shows who begins to watch what is there.
func server(t *testing.T) coordinationv1client.LeasesGetter {
	t.Helper()
	clients := fake.NewClientset()
	clients.PrependWatchReactor("leases", func(action clienttesting.Action) (bool, watch.Interface, error) {
		namespace := action.GetNamespace()
		changes, err := clients.Tracker().Watch(action.GetResource(), namespace)
		if err != nil {
			return true, nil, err
		}
		events := make(chan watch.Event, 10)
		if there, err := clients.Tracker().Get(action.GetResource(), namespace, "lease"); err == nil {
			events <- watch.Event{Type: watch.Added, Object: there}
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
	return clients.CoordinationV1()
}

// campaign runs one; elected is closed when it has the Lease.
func campaign(t *testing.T, e *election) (elected, ended chan struct{}, end context.CancelFunc) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	elected, ended = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		if err := e.run(ctx, func() { close(elected) }); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { end(); <-ended })
	return elected, ended, end
}

func TestALeaseThatIsGivenBackIsTakenAtOnce(t *testing.T) {
	both := candidates(t, "first", "second")
	elected, ended, end := campaign(t, both[0])
	<-elected
	next, _, _ := campaign(t, both[1])
	end()
	<-ended
	select {
	case <-next:
		t.Error("the Lease was taken before it was given back")
	default:
	}
	if err := both[0].release(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-next
}

// A leader that is dead is followed when its Lease is over, not a retry period
// later: that is an hour here.
func TestALeaseThatIsOverIsTakenAtOnce(t *testing.T) {
	next := candidates(t, "next")[0]
	now := metav1.NowMicro()
	_, err := next.leases.Leases("ns").Create(t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "lease"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To("dead"), LeaseDurationSeconds: ptr.To[int32](1), AcquireTime: &now, RenewTime: &now,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	elected, _, _ := campaign(t, next)
	<-elected
}

func TestOnlyOnesOwnLeaseIsGivenBack(t *testing.T) {
	both := candidates(t, "first", "second")
	if err := both[1].release(t.Context()); err != nil {
		t.Errorf("giving back a Lease that does not exist: %v", err)
	}
	elected, _, _ := campaign(t, both[0])
	<-elected
	if err := both[1].release(t.Context()); err != nil {
		t.Fatal(err)
	}
	record, _, err := both[0].lock().Get(t.Context())
	if err != nil || record.HolderIdentity != "first" {
		t.Errorf("the holder is %q, %v", record.HolderIdentity, err)
	}
}

func TestChangesThatFreeALease(t *testing.T) {
	free, held := &coordinationv1.Lease{}, &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To("a")}}
	for name, tt := range map[string]struct {
		change watch.Event
		want   bool
	}{
		"it is renewed":        {watch.Event{Type: watch.Modified, Object: held}, false},
		"it is given back":     {watch.Event{Type: watch.Modified, Object: free}, true},
		"it was given back":    {watch.Event{Type: watch.Added, Object: free}, true},
		"it is deleted":        {watch.Event{Type: watch.Deleted, Object: held}, true},
		"the watch has failed": {watch.Event{Type: watch.Error, Object: &metav1.Status{}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := vacates(tt.change); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// Somebody who still believes to be the leader when the Lease is long expired
// is stuck, and a kubelet shall end it.
func TestAnExpiredLeaseIsUnhealthy(t *testing.T) {
	e := candidates(t, "first")[0]
	e.options = &LeaderElectionOptions{Namespace: "ns", LeaseDuration: 3 * time.Millisecond, RenewDeadline: 2 * time.Millisecond, RetryPeriod: time.Millisecond}
	served := &endpoint{watchdog: e.watchdog}
	routes := served.routes(EndpointOptions{MetricsPath: "/metrics"}, prometheus.NewRegistry())
	health := func() int {
		answer := httptest.NewRecorder()
		routes.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/healthz/leader-election", nil))
		return answer.Code
	}
	if code := health(); code != http.StatusOK {
		t.Errorf("a process that does not lead is not healthy: %d", code)
	}
	elected, ended, end := campaign(t, e)
	<-elected
	end() // It renews no more, and has not noticed that it leads no more.
	<-ended
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		return health() == http.StatusInternalServerError, nil
	})
	if err != nil {
		t.Errorf("a process whose Lease is expired is healthy: %v", err)
	}
}

func TestReadinessFollowsTheCurrentTerm(t *testing.T) {
	e := &endpoint{watchdog: leaderelection.NewLeaderHealthzAdaptor(0)}
	answer := httptest.NewRecorder()
	e.ready(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if answer.Code != http.StatusServiceUnavailable {
		t.Errorf("before the first term: %d", answer.Code)
	}
}
