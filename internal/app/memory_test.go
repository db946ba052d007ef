package app

import (
	"math"
	"runtime"
	"testing"
	"time"
)

func TestGCPercent(t *testing.T) {
	tests := map[string]struct {
		live uint64
		want int
	}{
		"an empty heap":                  {0, 100},
		"a small heap":                   {8 << 20, 100},
		"as much live as garbage may be": {defaultMaxGarbage, 100},
		"twice as much live":             {2 * defaultMaxGarbage, 50},
		"so much live that collections would take much CPU time": {100 * defaultMaxGarbage, minGCPercent},
		"the largest heap": {math.MaxUint64 / 200, minGCPercent},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := gcPercent(tt.live, defaultMaxGarbage); got != tt.want {
				t.Errorf("got %d percent", got)
			}
		})
	}
}

func TestTheFunctionIsCalledAfterEachGC(t *testing.T) {
	called := make(chan struct{}, 1)
	afterEachGC(func() {
		select {
		case called <- struct{}{}:
		default:
		}
	})
	for range 3 {
		for waiting := true; waiting && t.Context().Err() == nil; { // The cleanup of a collection may not have run when the next one starts.
			runtime.GC()
			select {
			case <-called:
				waiting = false
			case <-time.After(time.Millisecond):
			}
		}
	}
}
