package capacity

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/holdfast-io/holdfast/internal/topology"
)

// work reconciles pairs from a queue as controller-runtime does, until the queue
// shuts down.
func (w *fixture) work(ctx context.Context, q priorityqueue.PriorityQueue[pair]) {
	for {
		p, _, shutdown := q.GetWithPriority()
		if shutdown {
			return
		}
		result, err := w.Reconcile(ctx, p)
		again := priorityqueue.AddOpts{After: result.RequeueAfter, Priority: result.Priority}
		if err != nil {
			again = priorityqueue.AddOpts{RateLimited: true, Priority: result.Priority}
		}
		if err != nil || again.After > 0 {
			q.AddWithOpts(again, p)
		}
		q.Done(p)
	}
}

// One process for 1,840 nodes, each a segment of its own, and two classes, over
// ten minutes in which every node is updated every ten seconds and a volume
// is created every second:
//   - the queue is never longer than the number of pairs;
//   - each pair is polled once a minute, spread over the minute, and the only other
//     calls to the driver are for the segments of new volumes;
//   - each object is written once, because nothing changes;
//   - nodes are listed once, however often they are updated.
func TestManyNodes(t *testing.T) {
	const nodes, minutes = 1840, 10
	const pairs = 2 * nodes
	synctest.Test(t, func(t *testing.T) {
		all := []client.Object{class("fast"), class("slow")}
		for i := range nodes {
			all = append(all, node(fmt.Sprint("n", i), fmt.Sprint("z", i))...)
		}
		w := newFixture(all...)
		q := priorityqueue.New[pair]("capacity-test")
		var mu sync.Mutex
		asked, deepest := make([]int, minutes*60), 0
		start := time.Now()
		w.getCapacity = func(context.Context, *csipb.GetCapacityRequest) (*csipb.GetCapacityResponse, error) {
			time.Sleep(time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			deepest = max(deepest, q.Len())
			asked[min(int(time.Since(start)/time.Second), len(asked)-1)]++
			return capacityResponse(100, 0), nil
		}
		var workers sync.WaitGroup
		workers.Go(func() { w.work(t.Context(), q) })
		w.sendEvent(t, q, nil, class("fast"))
		w.sendEvent(t, q, nil, class("slow"))
		for second := range minutes * 60 {
			for i := second % 10; i < nodes; i += 10 {
				before, _ := all[2+2*i].(*corev1.Node)
				after := changed(before, func(n *corev1.Node) { n.ResourceVersion = fmt.Sprint(second) })
				w.sendEvent(t, q, before, after)
			}
			zone := map[string]string{"zone": fmt.Sprint("z", second)}
			w.sendEvent(t, q, nil, volume("fast", topology.NodeAffinity(accessible(zone))))
			time.Sleep(time.Second)
		}
		q.ShutDown()
		workers.Wait()

		if deepest > pairs {
			t.Errorf("the queue had %d pairs, there are %d", deepest, pairs)
		}
		for minute := 1; minute < minutes; minute++ {
			calls := 0
			for _, n := range asked[minute*60 : (minute+1)*60] {
				calls += n
			}
			if want := pairs + 2*60; calls < pairs-pairs/50 || calls > want+want/50 {
				t.Errorf("%d calls in minute %d for %d pairs and %d new volumes", calls, minute, pairs, 60)
			}
		}
		if most := slices.Max(asked[60:]); most > 2*pairs/60 {
			t.Errorf("%d calls in one second", most)
		}
		if len(w.writes) != pairs {
			t.Errorf("%d writes for %d pairs", len(w.writes), pairs)
		}
		if n := w.lists["*v1.Node"]; n != 1 {
			t.Errorf("nodes were listed %d times", n)
		}
	})
}

// A driver that is down fails every call: each pair waits for its own retry, and
// none is in the queue twice.
func TestADriverThatFailsDoesNotFillTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(slices.Concat(node("n1", "a"), node("n2", "b"), []client.Object{class("fast")})...)
		q := priorityqueue.New[pair]("capacity-test-failing")
		w.getCapacity = func(context.Context, *csipb.GetCapacityRequest) (*csipb.GetCapacityResponse, error) {
			return nil, context.DeadlineExceeded
		}
		var workers sync.WaitGroup
		workers.Go(func() { w.work(t.Context(), q) })
		for range 1000 {
			w.sendEvent(t, q, nil, class("fast"))
			if n := q.Len(); n > 2 {
				t.Fatalf("%d of 2 pairs are in the queue", n)
			}
			time.Sleep(time.Millisecond)
		}
		q.ShutDown()
		workers.Wait()
	})
}

// At the start the classes and the objects enqueue all pairs. The objects of other
// kinds, of which there may be many, enqueue nothing.
func TestInitialListsOfOtherKindsEnqueueNothing(t *testing.T) {
	w := newFixture(slices.Concat(node("n1", "a"), []client.Object{class("fast")})...)
	news := map[string]bool{}
	there := append(node("n1", "a"), class("fast"), object("x", "fast", "a", 1), volume("fast", nil), claim("n1"))
	for _, o := range there {
		for _, watch := range w.watches() {
			if fmt.Sprintf("%T", watch.object) == fmt.Sprintf("%T", o) {
				news[fmt.Sprintf("%T", o)] = watch.predicate.Create(event.CreateEvent{Object: o, IsInInitialList: true})
			}
		}
	}
	want := map[string]bool{
		"*v1.Node": false, "*v1.CSINode": false, "*v1.PersistentVolume": false, "*v1.PersistentVolumeClaim": false,
		"*v1.StorageClass": true, "*v1.CSIStorageCapacity": true,
	}
	for kind, is := range want {
		if news[kind] != is {
			t.Errorf("%s: %t", kind, news[kind])
		}
	}
}
