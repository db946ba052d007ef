package app

import (
	"math"
	"runtime"
	"testing"
	"time"
)

func TestHowMuchGarbageMayCome(t *testing.T) {
	tests := map[string]struct {
		held uint64
		want int
	}{
		"nothing is held":                 {0, 100},
		"little is held":                  {8 << 20, 100},
		"as much as garbage may be":       {slack, 100},
		"twice as much":                   {2 * slack, 50},
		"so much that it would cost much": {100 * slack, leastPercent},
		"all that there can be":           {math.MaxUint64 / 200, leastPercent},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := garbagePercent(tt.held); got != tt.want {
				t.Errorf("got %d percent", got)
			}
		})
	}
}

func TestEachCollectionIsFollowed(t *testing.T) {
	followed := make(chan struct{}, 1)
	afterCollection(func() {
		select {
		case followed <- struct{}{}:
		default:
		}
	})
	for range 3 {
		for waiting := true; waiting && t.Context().Err() == nil; { // One that comes too soon after the last is not followed.
			runtime.GC()
			select {
			case <-followed:
				waiting = false
			case <-time.After(time.Millisecond):
			}
		}
	}
}
