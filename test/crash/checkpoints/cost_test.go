package checkpoints

import (
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/test/proxy"
)

// The most requests to the API server for one Checkpoint without a fault. A process that acts
// before its cache has the outcome of its last request repeats one, and is told of a conflict.
// docs/internals/checkpoint-benchmarks.md has these numbers, too.
func TestRequestsOfACheckpoint(t *testing.T) {
	s := newShared(t)
	type costs map[string]proxy.Counts // by role
	operator := proxy.Counts{"GET pods": 2, "PATCH checkpoints": 1, "PATCH checkpoints/status": 2}
	created := costs{"operator": operator, "agent": {"GET checkpoints": 2, "GET pods": 1, "PATCH checkpoints/status": 3, "POST events": 1}}
	deleted := costs{"agent": {"GET checkpoints": 2, "PATCH checkpoints": 1}}
	for _, row := range []struct {
		scenario         scenario
		created, deleted costs
	}{
		{scenario{name: "into a directory of the node"}, created, deleted},
		{scenario{name: "three containers", containers: 3}, created, deleted},
		{
			scenario{name: "encrypted into a bucket", bucket: true, encrypted: true},
			costs{"operator": operator, "agent": {"GET checkpoints": 2, "GET pods": 1, "GET secrets": 4, "PATCH checkpoints/status": 3, "POST events": 1}},
			costs{"agent": {"GET checkpoints": 2, "GET secrets": 1, "PATCH checkpoints": 1}},
		},
	} {
		t.Run(row.scenario.name, func(t *testing.T) {
			t.Parallel()
			row.scenario.counts = true
			e := newEnvironment(t, s, &row.scenario)
			e.wantRequests(t, "the start", nil)
			r := newRun(e)
			r.start(r, injection{})
			defer r.trace.stop()
			r.must(r.startPod(t.Context()))
			for _, act := range []struct {
				name string
				most costs
				do   step
			}{{"creating it", row.created, createOne}, {"deleting it", row.deleted, deleteAll}} {
				act.do(t.Context(), r)
				if found := r.waitSettled(t.Context()); !found.ok() {
					t.Fatalf("%s\n%s", &found, &r.trace)
				}
				e.wantRequests(t, act.name, act.most)
			}
			r.cleanUp(t.Context(), t, true)
		})
	}
}

// wantRequests checks what was requested since the last call; most is nil for anything.
func (e *environment) wantRequests(t *testing.T, what string, most map[string]proxy.Counts) {
	t.Helper()
	for _, p := range e.processes() {
		counts := p.counter.Reset()
		for name, n := range counts {
			if most != nil && n > most[p.role][name] && !strings.Contains(name, "checkpointnodes") {
				t.Errorf("%s: the %s has sent %d %s, want at most %d", what, p.role, n, name, most[p.role][name])
			}
		}
		t.Logf("%s: %s: %v", what, p.role, counts)
	}
}

// processes are the operator and the agents.
func (e *environment) processes() []*process {
	all := slices.Clone(e.operators)
	for _, n := range e.nodes {
		all = append(all, n.agent)
	}
	return all
}
