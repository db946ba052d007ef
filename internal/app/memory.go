package app

import (
	"os"
	"runtime"
	godebug "runtime/debug"
	"runtime/metrics"
)

const (
	// defaultMaxGarbage is how many bytes of garbage may accumulate before a collection.
	// By default Go lets as much garbage accumulate as the heap has live bytes.
	// Here nearly the whole live heap is caches, so a container would need twice
	// their size.
	defaultMaxGarbage = 24 << 20
	// minGCPercent bounds the CPU time for garbage collection if the live heap is large,
	// which is from largeHeap bytes on.
	minGCPercent = 25
	largeHeap    = 4 * defaultMaxGarbage
)

// LimitGarbage keeps garbage below so many bytes, unless GOGC is set; 0 for the default.
func LimitGarbage(most uint64) {
	if most == 0 {
		most = defaultMaxGarbage
	}
	if os.Getenv("GOGC") != "" {
		return
	}
	current := 100
	afterEachGC(func() {
		if percent := gcPercent(liveHeap(), most); percent != current {
			godebug.SetGCPercent(percent)
			current = percent
		}
	})
}

// gcPercent is the value of GOGC that keeps garbage below a limit for a live heap, both in
// bytes.
func gcPercent(live, most uint64) int {
	percent := 100 * most / max(live, most)
	if live >= largeHeap {
		percent = max(percent, minGCPercent)
	}
	return int(percent)
}

// liveHeap is the number of bytes that the last collection found alive.
func liveHeap() uint64 {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return live[0].Value.Uint64()
}

// afterEachGC calls f after each garbage collection.
func afterEachGC(f func()) {
	// The pointer keeps the object out of the tiny allocator, in which it would live
	// as long as its neighbours.
	type sentinel struct{ _ *sentinel }
	runtime.AddCleanup(new(sentinel), func(struct{}) {
		f()
		afterEachGC(f)
	}, struct{}{})
}
