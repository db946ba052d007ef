package csi

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

// A load is objects that are reconciled as a controller does it, in virtual time.
type load struct {
	objects  int
	method   Method
	request  func(i int) any
	takes    time.Duration // of the driver; 0 is for ever
	repeated bool          // the object is back when its call has been answered
}

const simulatedWorkers = 100

// simulate returns how many calls of each load are answered within ten minutes. The
// controller has a queue in order of arrival and the backoff of controllers.
func simulate(t *testing.T, timeout time.Duration, loads ...load) []int {
	t.Helper()
	answered := make([]atomic.Int64, len(loads))
	synctest.Test(t, func(t *testing.T) {
		d := &Driver{timeout: timeout, link: &link{path: "simulated", limiters: newLimiters(bounds{floor: simulatedWorkers / 10})}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		type object struct{ load, i, failures int }
		queue := make(chan object, 10000)
		for i := range 1000 { // The loads arrive mixed.
			for n, l := range loads {
				if i < l.objects {
					queue <- object{load: n, i: i}
				}
			}
		}
		reconcile := func(o object) {
			l := loads[o.load]
			driver := func(ctx context.Context, _ any, _ ...grpc.CallOption) (any, error) {
				if l.takes == 0 {
					<-ctx.Done()
					return nil, errLate
				}
				select {
				case <-time.After(l.takes):
					return nil, nil
				case <-ctx.Done():
					return nil, errLate
				}
			}
			_, err := send(ctx, d, operation{method: l.method, key: fmt.Sprint(o.load, o.i)}, driver, l.request(o.i))
			switch {
			case err != nil:
				pause := min(5*time.Minute, time.Second<<min(o.failures, 10))
				o.failures++
				time.AfterFunc(pause, func() { queue <- o })
			default:
				answered[o.load].Add(1)
				if l.repeated {
					queue <- object{load: o.load, i: o.i}
				}
			}
		}
		for range simulatedWorkers {
			go func() {
				for {
					select {
					case o := <-queue:
						reconcile(o)
					case <-ctx.Done():
						return
					}
				}
			}()
		}
		<-ctx.Done()
		synctest.Wait()
	})
	calls := make([]int, len(loads))
	for i := range answered {
		calls[i] = int(answered[i].Load())
	}
	return calls
}

// wantRate checks that a load loses at most a fifth of its calls.
func wantRate(t *testing.T, what string, alone, beside int) {
	t.Helper()
	t.Logf("%s: %d calls are answered, %d without the neighbour", what, beside, alone)
	if alone == 0 || beside*5 < alone*4 {
		t.Errorf("%s: %d calls are answered, want at least four fifths of %d", what, beside, alone)
	}
}

func publishTo(node func(i int) string) func(int) any {
	return func(i int) any {
		return &csipb.ControllerPublishVolumeRequest{VolumeId: fmt.Sprint(i), NodeId: node(i)}
	}
}

func TestANodeThatNeverAnswersDoesNotSlowTheOthers(t *testing.T) {
	elsewhere := map[string]func(int) string{
		"one other node":   func(int) string { return "well" },
		"many other nodes": func(i int) string { return fmt.Sprint("well-", i%50) },
	}
	for name, node := range elsewhere {
		for _, hung := range []int{30, 60} {
			t.Run(fmt.Sprintf("%d attachments beside %s", hung, name), func(t *testing.T) {
				good := load{objects: 200, method: ControllerPublishVolume, request: publishTo(node), takes: time.Second, repeated: true}
				bad := load{objects: hung, method: ControllerPublishVolume, request: publishTo(func(int) string { return "hung" })}
				alone := simulate(t, time.Minute, good)
				beside := simulate(t, time.Minute, good, bad)
				wantRate(t, "attachments elsewhere", alone[0], beside[0])
			})
		}
	}
}

func TestNodesOfAHungHypervisorDoNotSlowTheOthers(t *testing.T) {
	good := load{objects: 200, method: ControllerPublishVolume, request: publishTo(func(i int) string { return fmt.Sprint("well-", i%20) }), takes: time.Second, repeated: true}
	bad := load{objects: 30, method: ControllerPublishVolume, request: publishTo(func(i int) string { return fmt.Sprint("hung-", i%5) })}
	alone := simulate(t, time.Minute, good)
	wantRate(t, "attachments elsewhere", alone[0], simulate(t, time.Minute, good, bad)[0])
}

func TestSlowRestoresDoNotSlowPlainClaims(t *testing.T) {
	sources := map[string]func(int) string{
		"one snapshot":   func(int) string { return "big" },
		"many snapshots": func(i int) string { return fmt.Sprint("big-", i) },
	}
	for name, snapshot := range sources {
		t.Run(name, func(t *testing.T) {
			create := func(source func(int) string) func(int) any {
				return func(i int) any {
					return &csipb.CreateVolumeRequest{Name: fmt.Sprint(i), VolumeContentSource: &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Snapshot{
						Snapshot: &csipb.VolumeContentSource_SnapshotSource{SnapshotId: source(i)},
					}}}
				}
			}
			plain := load{objects: 200, method: CreateVolume, request: func(i int) any { return &csipb.CreateVolumeRequest{Name: fmt.Sprint(i)} }, takes: time.Second, repeated: true}
			slow := load{objects: 50, method: CreateVolume, request: create(snapshot), takes: 3 * time.Minute}
			small := load{objects: 1, method: CreateVolume, request: create(func(int) string { return "small" }), takes: time.Second}
			alone := simulate(t, 10*time.Second, plain)
			beside := simulate(t, 10*time.Second, plain, slow, small)
			wantRate(t, "plain claims", alone[0], beside[0])
			if beside[2] != 1 {
				t.Error("the restore of another snapshot has not come to an end")
			}
		})
	}
}

// A driver that is slow as a whole gets fewer calls: what it can answer in time.
func TestADriverThatIsSlowAsAWholeGetsFewerCalls(t *testing.T) {
	for name, targets := range map[string]int{"one node": 1, "many nodes": 50} {
		t.Run(name, func(t *testing.T) {
			p := newLimiter(bounds{floor: 10})
			sent := 0
			for round := range 20 {
				var slots []*slot
				for i := range simulatedWorkers {
					slots = append(slots, acquireAll(t, p, 1, node(fmt.Sprint(i%targets)))...)
				}
				dropWaiting(p)
				sent = len(slots)
				for i, s := range slots {
					if (i+7*round)%len(slots) < 10 { // The driver answers ten in time.
						p.release(s, nil)
					} else {
						p.release(s, errLate)
					}
				}
			}
			if sent > 20 {
				t.Errorf("%d calls are in flight, and the driver answers ten in time", sent)
			}
		})
	}
}
