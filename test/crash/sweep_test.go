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

	"github.com/holdfast-io/holdfast/test/world"
)

var (
	update = flag.Bool("update", false, "write the table into docs/internals/crash.md")
	full   = flag.Bool("full", false, "play every run, not a sample of them")
	// Generous: a run takes half a second on a machine that has time.
	patience = flag.Duration("patience", time.Minute, "how long a run may take for one half of it")
)

// abreast is how many runs take place at a time: of one scenario in a full
// sweep, of different ones in a sample, which has too few of each to be worth
// the stages. They wait most of the time, so there can be more of them than
// processors.
const abreast = 6

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", fmt.Sprint(abreast)); err != nil {
			panic(err)
		}
	}
	os.Exit(world.Main(m))
}

// A process may die at any write and at any call. Whichever it was, its
// successor leads every claim to its end, with exactly the volumes that are
// wanted and nothing left over.
func TestSweep(t *testing.T) {
	if _, err := world.Programs(); err != nil {
		t.Fatal(err)
	}
	all := &table{}
	t.Cleanup(func() { // When all scenarios are over.
		fmt.Println(all)
		fmt.Println(all.byWay())
		all.check(t)
		if *update {
			all.write(t)
		}
	})
	for i, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) { sc.sweep(t, i, all.row(sc)) })
	}
}

// sweep plays a scenario without a fault, to find its points, and then once for
// every way to strike at each of them. If the scenario has a turn, that is
// swept over the points too; what comes after it may be other points.
//
// A sample has one way for every third point, or every twelfth, other points and
// ways in the next scenario, and takes the turn at that point only.
func (sc *scenario) sweep(t *testing.T, number int, counted *row) {
	stages := abreast
	if !*full {
		stages = 1
		t.Parallel()
	}
	free := make(chan *stage, stages)
	for range stages {
		free <- newStage(t, sc)
	}
	counted.plan(1)
	first := <-free // The oldest: the controllers of Kubernetes know its class by now.
	points, ok := first.perform(t, strike{}, counted)
	free <- first
	if !ok {
		t.Fatal("a scenario that fails without a fault has no points")
	}
	strikes := sc.strikes(t, points, number, free, counted)
	counted.plan(len(strikes))
	for _, s := range strikes {
		t.Run(s.label(sc.turns), func(t *testing.T) {
			if *full {
				t.Parallel()
			}
			on := <-free
			defer func() { free <- on }()
			on.perform(t, s, counted)
		})
	}
}

// strikes are those that come after the run without a fault. Runs in which calls
// take too long come last: the processes are started anew for them.
func (sc *scenario) strikes(t *testing.T, points []point, number int, free chan *stage, counted *row) []strike {
	var all []strike
	switch {
	case !*full:
		all = sc.sample(points, number)
	case sc.turn != nil:
		all = slices.Concat(sc.turned(t, points, free, counted), sc.pairs(points))
	default:
		all = slices.Concat(over(points, ""), sc.pairs(points))
	}
	slices.SortStableFunc(all, func(a, b strike) int {
		switch {
		case a.hasty() == b.hasty():
			return 0
		case b.hasty():
			return -1
		default:
			return 1
		}
	})
	return all
}

// turned takes the scenario's turn at every point, with no process struck, and
// returns the strikes at what comes then.
func (sc *scenario) turned(t *testing.T, points []point, free chan *stage, counted *row) []strike {
	counted.plan(len(points))
	strikes := make([][]strike, len(points))
	var all sync.WaitGroup
	for i, turn := range points {
		on := <-free
		all.Go(func() {
			defer func() { free <- on }()
			then, ok := on.perform(t, strike{turn: turn}, counted)
			if !ok {
				then = []point{turn} // Its points are those of a failure.
			}
			if sc.once {
				then = []point{turn}
			}
			strikes[i] = over(then, turn)
		})
	}
	all.Wait()
	return slices.Concat(strikes...)
}

// sampled is how many points there are for each that a sample strikes. With groups
// and schedules there are many that are the same, once for each claim.
func (sc *scenario) sampled() int {
	if sc.together || sc.scheduled {
		return 12
	}
	return 3
}

// sample strikes once at every so many points, at a third of these once more with
// an error, and at one point twice. Which points, and in which ways, depends on the
// scenario's number.
func (sc *scenario) sample(points []point, number int) []strike {
	var all []strike
	strikeAt := func(p point, ways []way, n int) {
		s := strike{at: p, way: ways[n%len(ways)]}
		if sc.turn != nil {
			s.turn = p
		}
		all = append(all, s)
	}
	every := sc.sampled()
	for i := number % every; i < len(points); i += every {
		strikeAt(points[i], deaths, i/every+number/every)
	}
	for i := number * 2 % (3 * every); i < len(points); i += 3 * every {
		strikeAt(points[i], errorsAt(points[i]), number+i)
	}
	if pairs := sc.pairs(points); len(pairs) > 0 {
		all = append(all, pairs[number*scatter%len(pairs)])
	}
	return all
}

// scatter takes pairs from everywhere among the scenarios': it has no divisor in
// common with how many they have.
const scatter = 37

var runs atomic.Int64

// perform plays one run, counts it, and returns its points and whether all went
// well. What is left of one that failed is removed, so that the next one begins
// afresh.
func (s *stage) perform(t *testing.T, with strike, counted *row) ([]point, bool) {
	r := &run{
		stage: s, name: fmt.Sprintf("run-%d", runs.Add(1)),
		wanted: map[string]types.UID{}, visited: map[string]string{}, places: map[string]string{},
		kept: map[string]bool{}, retained: map[string]bool{},
		groups: map[string]types.UID{}, members: map[string]bool{}, retainedGroups: map[string]bool{},
	}
	s.hurry(with.hasty())
	found := r.play(t.Context(), with)
	points, hit := s.trace.seen()
	counted.add(with, found, hit || with == strike{})
	if found.ok() {
		return points, true
	}
	said := &strings.Builder{}
	for i, c := range s.controllers {
		fmt.Fprintf(said, "process %d, %s, said:\n%s", i, c.role, c.said())
		c.kill()
	}
	t.Errorf("%s:\n%s\nwhat was done:\n%s\n%s", with.label(s.scenario.turns), &found, &s.trace, said)
	s.clear(context.WithoutCancel(t.Context()), t)
	for _, c := range s.controllers {
		c.start()
	}
	return points, false
}
