package pernode

import (
	"fmt"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"k8s.io/apimachinery/pkg/types"
)

func TestPause(t *testing.T) {
	const s = time.Second
	tests := map[string]struct {
		tries  int
		random float64
		want   time.Duration
	}{
		"the first may be at once":                         {0, 0, 0},
		"or after some time":                               {0, 0.5, 10 * s},
		"but not longer than the base":                     {0, 0.999, 19980 * time.Millisecond},
		"the second may be twice as long":                  {1, 0.5, 20 * s},
		"the third is bounded":                             {2, 0.5, 30 * s},
		"the hundredth too":                                {100, 0.5, 30 * s},
		"however many there were, the next may be at once": {100, 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := pause(20*s, 60*s, tt.tries, tt.random); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// newTestRace has a clock of its own and no randomness.
func newTestRace() (r *Race, pass func(time.Duration)) {
	r = NewRace(&Node{BaseDelay: 20 * time.Second, MaxDelay: time.Minute})
	now := time.Unix(0, 0)
	r.now, r.random = func() time.Time { return now }, func() float64 { return 0.5 }
	return r, func(d time.Duration) { now = now.Add(d) }
}

func TestRace(t *testing.T) {
	r, pass := newTestRace()
	left := func(when string, want time.Duration) {
		t.Helper()
		if got := r.Wait("c"); got != want {
			t.Errorf("%s there are %s left, want %s", when, got, want)
		}
	}
	tried := func(when string, want time.Duration, long bool) {
		t.Helper()
		if got, is := r.Tried("c"); got != want || is != long {
			t.Errorf("%s the next try is in %s (long: %t), want %s", when, got, is, want)
		}
	}
	left("at first", 10*time.Second)
	pass(4 * time.Second)
	left("when something wakes it early", 6*time.Second)
	pass(6 * time.Second)
	left("when its time has come", 0)
	tried("after the first", 20*time.Second, false)
	left("after the first try", 20*time.Second)
	pass(time.Hour)
	tried("after the second", 30*time.Second, false)
	pass(time.Hour)
	tried("after the third", 30*time.Second, true)

	r.Settled("c")
	pass(10 * time.Minute)
	left("when the node that had it gives it back", 30*time.Second)
	if got := r.Wait("d"); got != 10*time.Second {
		t.Errorf("another claim waits %s", got)
	}
}

func TestOldAttemptsAreRemoved(t *testing.T) {
	r, pass := newTestRace()
	for n := range pruneThreshold {
		r.Wait(types.UID(fmt.Sprint("over-", n)))
	}
	pass(5 * time.Minute)
	r.Wait("waits")
	pass(6 * time.Minute)
	for n := range pruneThreshold {
		r.Wait(types.UID(fmt.Sprint("new-", n)))
	}
	if len(r.attempts) > pruneThreshold+1 {
		t.Errorf("it has %d attempts", len(r.attempts))
	}
	if r.attempts["waits"] == nil {
		t.Error("it removed one that is still going on")
	}
}

func TestFits(t *testing.T) {
	largest := wrapperspb.Int64
	tests := map[string]struct {
		room *csipb.GetCapacityResponse
		want bool
	}{
		"as much room as is asked for is enough":        {&csipb.GetCapacityResponse{AvailableCapacity: 10}, true},
		"less is not":                                   {&csipb.GetCapacityResponse{AvailableCapacity: 9}, false},
		"nor is more, in volumes that are too small":    {&csipb.GetCapacityResponse{AvailableCapacity: 99, MaximumVolumeSize: largest(9)}, false},
		"the largest volume is large enough":            {&csipb.GetCapacityResponse{AvailableCapacity: 99, MaximumVolumeSize: largest(10)}, true},
		"a driver that could make larger ones has less": {&csipb.GetCapacityResponse{AvailableCapacity: 9, MaximumVolumeSize: largest(99)}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := HasCapacityFor(tt.room, 10); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}
