package runtime

import "time"

// A FreezeTime is for how long a container was frozen whose dump had so many bytes.
type FreezeTime struct {
	Bytes  int64
	Frozen time.Duration
}

// FreezeTimes has the fastest dump of a large container that a node has made, for each step.
// It is the basis of an estimate, and nothing is lost with it: without one, a dump that
// takes too long is given up when the time that is permitted has passed.
type FreezeTimes map[Step]FreezeTime

const (
	// leastToLearn is how large a dump is, in bytes, that says something about others: what
	// does not depend on the size takes most of the time of smaller ones.
	leastToLearn = 512 << 20
	// mostFaster is how many times faster than ever before a dump may be.
	mostFaster = 2
)

// Learn takes a dump into account.
func (f FreezeTimes) Learn(r Report) {
	if !r.Exact || r.Bytes < leastToLearn || r.Frozen <= 0 {
		return
	}
	seen := FreezeTime{Bytes: r.Bytes, Frozen: r.Frozen}
	if best, ok := f[r.Step]; !ok || seen.rate() > best.rate() {
		f[r.Step] = seen
	}
}

// rate is in bytes a second.
func (t FreezeTime) rate() float64 { return float64(t.Bytes) / t.Frozen.Seconds() }

// Check returns an error if containers with so much memory, in bytes, would certainly be
// frozen for longer than permitted.
func (f FreezeTimes) Check(step Step, memory int64, permitted time.Duration) error {
	seen, ok := f[step]
	if !ok || permitted <= 0 {
		return nil
	}
	likely := time.Duration(float64(memory) / seen.rate() * float64(time.Second))
	if likely <= mostFaster*permitted {
		return nil
	}
	return Errorf(Timeout, "%d MiB of memory would be frozen for about %s by step %s (the node has taken %s for %d MiB), and %s are permitted; nothing was frozen",
		memory>>20, likely.Round(time.Second), step, seen.Frozen.Round(time.Millisecond), seen.Bytes>>20, permitted)
}
