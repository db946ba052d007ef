package checkpoints

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

var (
	update   = flag.Bool("update", false, "write the table into docs/internals/crash.md")
	full     = flag.Bool("full", false, "execute every run, not a sample of them")
	patience = flag.Duration("patience", time.Minute, "how long a step of a run may take")
)

// parallelRuns is how many runs take place at the same time. Runs mostly wait.
const parallelRuns = 6

func TestMain(m *testing.M) {
	cluster.RunInParallel(parallelRuns)
	ctrl.SetLogger(logr.Discard()) // A run that fails prints its points, and the errors of its processes.
	klog.SetLogger(logr.Discard())
	os.Exit(world.Main(m))
}

// The operator or an agent may die at any write and at any call. A successor must bring every
// Checkpoint to its end, with exactly the wanted data, and nothing frozen or left over.
func TestSweep(t *testing.T) {
	s := newShared(t)
	all := &table{}
	t.Run("all", func(t *testing.T) {
		for i, sc := range scenarios {
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				sc.sweep(t, i, newEnvironment(t, s, sc), all.row(sc))
			})
		}
	})
	if parts, err := s.s3.Parts(bucketName); err != nil || len(parts) > 0 {
		t.Errorf("the bucket has the parts %v, %v", parts, err)
	}
	fmt.Println(all)
	fmt.Println(all.byFault())
	all.check(t)
	if *update {
		all.write(t)
	}
}

// sweep runs a scenario without a fault, to find its points, and then once for every fault
// at each point. If the scenario has a disruption, that is swept over the points too.
func (sc *scenario) sweep(t *testing.T, number int, on *environment, counted *row) {
	points, ok := on.runOnce(t, injection{}, counted)
	if !ok {
		t.Fatal("the scenario fails without a fault, so its points are unknown")
	}
	inject := func(all []injection) {
		for _, s := range all {
			t.Run(s.label(sc.disruptionName), func(t *testing.T) { on.runOnce(t, s, counted) })
		}
	}
	switch {
	case !*full:
		inject(sc.sample(points, number))
	case sc.disruption == nil:
		inject(injectionsAt(points, ""))
	default:
		for _, at := range points {
			inject(on.disruptedAt(t, at, counted))
		}
	}
}

// disruptedAt runs the scenario with its disruption at a point, and returns the injections at
// the points that follow, which may be others than before.
func (e *environment) disruptedAt(t *testing.T, at point, counted *row) []injection {
	then, ok := e.runOnce(t, injection{disruption: at}, counted)
	i := slices.Index(then, at)
	if !ok || e.scenario.once || i < 0 {
		return injectionsAt([]point{at}, at)
	}
	return injectionsAt(then[i:], at)
}

// injectionsAt returns the injections of every fault at the points.
func injectionsAt(points []point, disruption point) []injection {
	var all []injection
	for _, p := range points {
		for _, f := range faultsAt(p) {
			if disruption != "" && p != disruption && !f.kills {
				continue
			}
			all = append(all, injection{at: p, fault: f, disruption: disruption})
		}
	}
	return all
}

// sampleSize is the number of runs with a fault of each scenario in a sample.
const sampleSize = 4

// sample injects a few faults. Which points and faults depends on the scenario's number.
func (sc *scenario) sample(points []point, number int) []injection {
	var all []injection
	for i := range sampleSize {
		p := points[(number*len(points)/len(scenarios)+i*len(points)/sampleSize)%len(points)]
		faults := faultsAt(p)
		s := injection{at: p, fault: faults[(number+i)%len(faults)]}
		if sc.disruption != nil {
			s.disruption = p
		}
		all = append(all, s)
	}
	return all
}
