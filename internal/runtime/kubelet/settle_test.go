package kubelet

import (
	"slices"
	"testing"
	"time"
)

func TestSettling(t *testing.T) {
	t.Parallel()
	times := times{grace: 2 * time.Second, quiet: 3 * time.Second, limit: 10 * time.Second}
	idle, frozen, traced := activity{}, activity{frozen: true}, activity{traced: true}
	grows := func(size int64) activity { return activity{archive: "x.tar", size: size} }
	tests := map[string]struct {
		quiet bool       // whether quiet is waited for
		seen  []activity // one a second
		want  []step
	}{
		"nothing happens after an answer": {false, []activity{idle}, []step{settled}},
		"nothing happens after a lost answer": {true,
			[]activity{idle, idle, idle, idle}, []step{wait, wait, wait, settled}},
		"the runtime thaws the container": {false,
			[]activity{frozen, frozen, idle}, []step{wait, wait, settled}},
		"the runtime does not thaw the container": {false,
			[]activity{frozen, frozen, frozen, idle}, []step{wait, wait, thaw, settled}},
		"what is frozen again is thawed again": {true,
			[]activity{frozen, idle, frozen, frozen, idle}, []step{wait, wait, wait, thaw, wait}},
		"CRIU holds the processes": {false,
			[]activity{traced, traced, traced, idle}, []step{wait, wait, wait, settled}},
		"the archive grows": {true,
			[]activity{grows(1), grows(2), grows(3), grows(3), grows(3), grows(3)}, []step{wait, wait, wait, wait, wait, settled}},
		"CRIU never ends": {false,
			slices.Repeat([]activity{traced}, 11), append(slices.Repeat([]step{wait}, 10), expired)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
			s := &settling{times: times, start: start, frozenSince: start, quietSince: start}
			if !test.quiet {
				s.times.quiet = 0
			}
			for i, now := range test.seen {
				if got := s.observe(now, start.Add(time.Duration(i)*time.Second)); got != test.want[i] {
					t.Errorf("second %d: step %d, want %d", i, got, test.want[i])
				}
			}
		})
	}
}
