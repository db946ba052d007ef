package schedule

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// A run over n claims with an expired snapshot each asked the API server n times, and each
// time it went through all snapshots of the namespace.
func TestHistoriesAreReadTogether(t *testing.T) {
	s := snapshotKind{}.fromObject(daily())
	for n, want := range map[int]int{0: 0, 1: 1, 200: 1, 201: 2, 1000: 5} {
		var gone []*childState
		for i := range n {
			gone = append(gone, &childState{childStatus: childStatus{history: fmt.Sprint("claim-", i)}})
		}
		selectors := historySelectors(s, gone)
		if len(selectors) != want {
			t.Errorf("%d histories are read with %d requests, want %d", n, len(selectors), want)
		}
		for _, g := range gone {
			if selected(selectors, labels.Set{uidLabel: "schedule-uid", claimLabel: g.history}) != 1 {
				t.Fatalf("history %s is not read exactly once", g.history)
			}
		}
		if selected(selectors, labels.Set{uidLabel: "another", claimLabel: "claim-0"}) != 0 || selected(selectors, labels.Set{uidLabel: "schedule-uid", claimLabel: "other"}) != 0 {
			t.Error("snapshots of another schedule or claim are read")
		}
	}
}

// They are read once for all snapshots that are deleted, too.
func TestExpiredSnapshotsOfManyClaimsAreReadOnce(t *testing.T) {
	s, claims := daily(), manyClaims(3)
	s.Spec.Retention = keepOne()
	w := newCrashTest(t, s, claims)
	for i := range claims {
		newer := newSnapshotFor(s, &claims[i], runAt(twoToday, twoToday))
		newer.UID, newer.CreationTimestamp = types.UID("new-"+claims[i].Name), *metaTime(twoToday)
		setReady(newer, twoToday)
		if err := w.server.Create(t.Context(), newer); err != nil {
			t.Fatal(err)
		}
	}
	w.refresh(t)
	r := w.process()
	observed, err := r.observe(t.Context(), client.ObjectKeyFromObject(s), false)
	if err != nil {
		t.Fatal(err)
	}
	gone, _ := observed.expired(sameClocks(w.now))
	if stuck, err := r.deleteChildren(t.Context(), observed, gone); stuck != "" || err != nil || len(w.removed) != 3 || w.historyLists != 1 {
		t.Errorf("%q, %v, removed: %v, with %d requests for their histories", stuck, err, w.removed, w.historyLists)
	}
}

func selected(by []labels.Selector, set labels.Set) (times int) {
	for _, selector := range by {
		if selector.Matches(set) {
			times++
		}
	}
	return times
}

// syncedCache is a cache that has synced.
type syncedCache struct{ cache.Cache }

func (syncedCache) WaitForCacheSync(context.Context) bool { return true }

// newCachedReconciler returns a reconciler whose cache has the objects, and counts how often
// schedules are copied out of it.
func newCachedReconciler(t *testing.T, objects ...client.Object) (r *Reconciler, copies *int) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, snapshotv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	copies = new(int)
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithIndex(&snapshotv1.VolumeSnapshot{}, bySchedule, scheduleUID).Build()
	counting := interceptor.NewClient(c, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if _, ok := o.(*v1alpha1.SnapshotSchedule); ok {
				*copies++
			}
			return c.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			o := client.ListOptions{}
			if o.ApplyOptions(opts); o.UnsafeDisableDeepCopy == nil || !*o.UnsafeDisableDeepCopy {
				*copies++
			}
			return c.List(ctx, list, opts...)
		},
	})
	return &Reconciler{
		kind: snapshotKind{}, client: counting, metrics: newMetrics(snapshotTerms), options: &Options{}, now: func() time.Time { return noon },
		serverTime: func() (time.Time, bool) { return noon, true },
	}, copies
}

// A status may have hundreds of claims, and there are events and scrapes all the time.
func TestSchedulesAreNotCopiedForEventsAndScrapes(t *testing.T) {
	claim := boundClaim("data")
	r, copies := newCachedReconciler(t, daily(), &claim)
	if got := r.requestsForTarget(t.Context(), &claim); len(got) != 1 || *copies != 0 {
		t.Errorf("an event of a claim starts %d reconciles and copies %d schedules", len(got), *copies)
	}
	if got := len(scrape(r)); got != 2 || *copies != 0 {
		t.Errorf("a scrape returns %d series and copies %d schedules", got, *copies)
	}
}

// scrape returns the series of a scrape.
func scrape(r *Reconciler) []prometheus.Metric {
	var all []prometheus.Metric
	to, done := make(chan prometheus.Metric), make(chan struct{})
	go func() {
		defer close(done)
		for m := range to {
			all = append(all, m)
		}
	}()
	(&collector{Reconciler: r, cache: syncedCache{}}).Collect(to)
	close(to)
	<-done
	return all
}

// countSeries returns how many of a scrape's series each namespace has, and each NAMESPACE/SCHEDULE,
// and how many are reported as omitted.
func countSeries(t *testing.T, all []prometheus.Metric) (series map[string]int, omitted float64) {
	t.Helper()
	series = map[string]int{}
	for _, m := range all {
		var read dto.Metric
		if err := m.Write(&read); err != nil {
			t.Fatal(err)
		}
		by := map[string]string{}
		for _, label := range read.GetLabel() {
			by[label.GetName()] = label.GetValue()
		}
		if len(by) == 0 {
			omitted = read.GetGauge().GetValue()
			continue
		}
		series[by["namespace"]]++
		series[by["namespace"]+"/"+by[snapshotTerms.scheduleLabel]]++
	}
	return series, omitted
}

// Who may create schedules could otherwise have a million series made: a thousand schedules
// of a thousand claims.
func TestTheNumberOfSeriesIsBounded(t *testing.T) {
	var objects []client.Object
	for i := range 10 {
		s := daily()
		s.Name, s.UID = fmt.Sprint("schedule-", i), types.UID(fmt.Sprint("schedule-", i))
		objects = append(objects, s)
	}
	for i := range maxSeriesOfSchedule + 100 {
		claim := boundClaim(fmt.Sprint("claim-", i))
		objects = append(objects, &claim)
	}
	other, claim := daily(), boundClaim("data")
	other.Namespace, claim.Namespace = "other", "other"
	r, _ := newCachedReconciler(t, append(objects, other, &claim)...)
	series, omitted := countSeries(t, scrape(r))
	for of, n := range series {
		if strings.Contains(of, "/") && n > maxSeriesOfSchedule {
			t.Errorf("schedule %s has %d series, want at most %d", of, n, maxSeriesOfSchedule)
		}
	}
	if got := series[claim.Namespace]; got != 1 {
		t.Errorf("the other namespace has %d series, want 1", got)
	}
	if got := series[daily().Namespace]; got != maxSeriesOfNamespace {
		t.Errorf("the namespace has %d series, want %d", got, maxSeriesOfNamespace)
	}
	if want := float64(10*(maxSeriesOfSchedule+100) - maxSeriesOfNamespace); omitted != want {
		t.Errorf("%v are reported as omitted, want %v", omitted, want)
	}
}

func TestOldest(t *testing.T) {
	ages := map[string]time.Duration{"a": 1, "b": 3, "c": 2, "d": 2}
	for n, want := range map[int]string{0: "[]", 1: "[b]", 3: "[b c d]", 9: "[b c d a]"} {
		if got := fmt.Sprint(oldest(ages, n)); got != want {
			t.Errorf("the oldest %d are %s, want %s", n, got, want)
		}
	}
}
