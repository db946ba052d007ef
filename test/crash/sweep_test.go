package crash

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

var (
	update = flag.Bool("update", false, "write the row of each scenario into docs/internals/crash.md when it has passed")
	full   = flag.Bool("full", false, "execute every run, not a sample of them")
	resume = flag.Bool("resume", false, "leave out scenarios whose row is of the present commit")
	// Generous: a run takes half a second on an idle machine.
	settleTimeout = flag.Duration("patience", time.Minute, "how long a step of a run may take")
)

// parallelRuns is how many runs take place at the same time: of one scenario in a full
// sweep, of different ones in a sample, which has too few runs of each scenario to be
// worth several environments. Runs mostly wait, so there can be more of them than
// processors.
const parallelRuns = 6

func TestMain(m *testing.M) {
	cluster.RunInParallel(parallelRuns)
	os.Exit(world.Main(m))
}

// A process may die at any write and at any call. Its successor must bring every claim
// to its end, with exactly the wanted volumes and nothing left over.
func TestSweep(t *testing.T) {
	if _, err := world.Programs(); err != nil {
		t.Fatal(err)
	}
	all, passed := &table{}, &table{}
	t.Cleanup(func() { // When all scenarios have ended.
		fmt.Println(all)
		fmt.Println(all.byFault())
		all.check(t)
	})
	commit := ""
	if *update || *resume {
		commit = codeCommit(t)
	}
	for i, sc := range scenarios {
		if *resume && sweptAt(t, sc) == commit {
			continue
		}
		var counted *row
		ok := t.Run(sc.name, func(t *testing.T) {
			counted = all.row(sc)
			counted.commit = commit
			sc.sweep(t, i, counted)
		})
		if *update && ok && counted != nil { // A scenario that -run leaves out is not counted.
			passed.rows = append(passed.rows, counted)
			passed.write(t)
		}
	}
}

// sweep runs a scenario without a fault, to find its points, and then once for every
// fault at each point. If the scenario has a disruption, that is swept over the points
// too; the points after it may differ.
//
// A sample has one fault at every third point, or every twelfth, with other points and
// faults in the next scenario, and disrupts at that point only.
func (sc *scenario) sweep(t *testing.T, number int, counted *row) {
	stages := parallelRuns
	if !*full {
		stages = 1
		t.Parallel()
	}
	free := make(chan *environment, stages)
	for range stages {
		free <- newStage(t, sc)
	}
	counted.plan(1)
	first := <-free // The oldest: Kubernetes' controllers know its class by now.
	points, ok := first.runOnce(t, injection{}, counted)
	free <- first
	if !ok {
		t.Fatal("the scenario fails without a fault, so its points are unknown")
	}
	all := sc.injections(t, points, number, free, counted)
	counted.plan(len(all))
	for _, s := range all {
		t.Run(s.label(sc.disruptionName), func(t *testing.T) {
			if *full {
				t.Parallel()
			}
			on := <-free
			defer func() { free <- on }()
			on.runOnce(t, s, counted)
		})
	}
}

// injections are the runs after the one without a fault. Runs with slow calls come
// last: the processes are restarted for them.
func (sc *scenario) injections(t *testing.T, points []point, number int, free chan *environment, counted *row) []injection {
	var all []injection
	switch {
	case !*full:
		all = sc.sample(points, number)
	case sc.disruption != nil:
		all = slices.Concat(sc.disruptAtEachPoint(t, points, free, counted), sc.faultPairs(points))
	default:
		all = slices.Concat(injectionsAt(points, ""), sc.faultPairs(points))
	}
	slices.SortStableFunc(all, func(a, b injection) int {
		switch {
		case a.needsShortTimeouts() == b.needsShortTimeouts():
			return 0
		case b.needsShortTimeouts():
			return -1
		default:
			return 1
		}
	})
	return all
}

// disruptAtEachPoint runs the scenario's disruption at each point without a fault, and
// returns the injections at the points that follow.
func (sc *scenario) disruptAtEachPoint(t *testing.T, points []point, free chan *environment, counted *row) []injection {
	counted.plan(len(points))
	found := make([][]injection, len(points))
	var all sync.WaitGroup
	for i, at := range points {
		on := <-free
		all.Go(func() {
			defer func() { free <- on }()
			then, ok := on.runOnce(t, injection{disruption: at}, counted)
			if !ok {
				then = []point{at} // The points of a failed run are not reliable.
			}
			if sc.once {
				then = []point{at}
			}
			found[i] = injectionsAt(then, at)
		})
	}
	all.Wait()
	return slices.Concat(found...)
}

// sampleInterval is the number of points for each one that a sample uses. Scenarios
// with groups and schedules have many similar points, one for each claim.
func (sc *scenario) sampleInterval() int {
	if sc.grouped || sc.scheduled {
		return 12
	}
	return 3
}

// sample injects a fault at every sampleInterval-th point, another one with an error
// at a third of these, and one pair of faults. Which points and faults depends on the
// scenario's number.
func (sc *scenario) sample(points []point, number int) []injection {
	var all []injection
	injectAt := func(p point, faults []fault, n int) {
		s := injection{at: p, fault: faults[n%len(faults)]}
		if sc.disruption != nil {
			s.disruption = p
		}
		all = append(all, s)
	}
	every := sc.sampleInterval()
	for i := number % every; i < len(points); i += every {
		injectAt(points[i], killFaults, i/every+number/every)
	}
	for i := number * 2 % (3 * every); i < len(points); i += 3 * every {
		injectAt(points[i], errorFaults(points[i]), number+i)
	}
	if pairs := sc.faultPairs(points); len(pairs) > 0 {
		all = append(all, pairs[number*pairStride%len(pairs)])
	}
	return all
}

// pairStride spreads the pairs over the scenarios: it shares no divisor with their
// numbers.
const pairStride = 37

var runCount atomic.Int64

// runOnce executes one run, counts it, and returns its points and whether it passed.
// After a failure it cleans up, so that the next run starts clean.
func (s *environment) runOnce(t *testing.T, with injection, counted *row) ([]point, bool) {
	r := &run{
		environment: s, name: fmt.Sprintf("run-%d", runCount.Add(1)),
		wanted: map[string]types.UID{}, lastNode: map[string]string{}, wantedAttachments: map[string]string{},
		wantedSnapshots: map[string]bool{}, retained: map[string]bool{},
		wantedGroups: map[string]types.UID{}, members: map[string]bool{}, retainedGroups: map[string]bool{},
	}
	s.setCallTimeouts(with.needsShortTimeouts())
	found := r.execute(t.Context(), with)
	points, hit := s.trace.result()
	counted.add(with, found, hit || with == injection{})
	if found.ok() {
		return points, true
	}
	said := &strings.Builder{}
	for i, c := range s.controllers {
		fmt.Fprintf(said, "output of process %d, %s:\n%s", i, c.role, c.log())
		c.kill()
	}
	t.Errorf("%s:\n%s\nlog of the run:\n%s\n%s", with.label(s.scenario.disruptionName), &found, &s.trace, said)
	s.cleanUp(context.WithoutCancel(t.Context()), t)
	for _, c := range s.controllers {
		c.start()
	}
	return points, false
}
