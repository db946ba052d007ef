package app

import (
	"os"
	"runtime"
	godebug "runtime/debug"
	"runtime/metrics"
)

const (
	// slack is how many bytes of garbage may come on top of what is held before
	// they are collected. Go lets as many come as are held, which is good for what
	// is short-lived; here nearly all that is held are caches, which stay, and a
	// container would have to be given twice their size.
	slack = 24 << 20
	// leastPercent bounds what that costs of processor where very much is held.
	leastPercent = 25
)

// boundGarbage keeps garbage within slack from now on, unless the environment has
// another wish.
func boundGarbage() {
	if os.Getenv("GOGC") != "" {
		return
	}
	before := garbagePercent(0)
	afterCollection(func() {
		if now := garbagePercent(held()); now != before {
			godebug.SetGCPercent(now)
			before = now
		}
	})
}

// garbagePercent is how much garbage may come, in percent of what is held.
func garbagePercent(held uint64) int {
	return int(max(leastPercent, 100*slack/max(held, slack)))
}

// held is what the last collection has left over, in bytes.
func held() uint64 {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return live[0].Value.Uint64()
}

// afterCollection has something done after each collection.
func afterCollection(do func()) {
	type dropped struct{ _ *dropped } // With a pointer in it, it is not kept as long as its neighbours.
	runtime.AddCleanup(new(dropped), func(struct{}) {
		do()
		afterCollection(do)
	}, struct{}{})
}
