package retention

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

type checkpoints = []*v1alpha1.Checkpoint

const h = time.Hour

func namesOf(all []expired) string {
	var names []string
	for _, e := range all {
		names = append(names, e.checkpoint.Name)
	}
	return strings.Join(names, " ")
}

func TestDecide(t *testing.T) {
	for name, row := range map[string]struct {
		all  checkpoints
		keep *v1alpha1.CheckpointRetention
		gone string        // names, oldest first
		next time.Duration // from now; 0 for never
	}{
		"without retention all are kept": {
			all: checkpoints{taken("a", 1*h), taken("b", 9000*h)},
		},
		"as many as permitted are kept": {
			all: checkpoints{taken("a", 1*h), taken("b", 2*h)}, keep: keeping(2, 0),
		},
		"the oldest ones are surplus": {
			all: checkpoints{taken("c", 3*h), taken("a", 1*h), taken("d", 4*h), taken("b", 2*h)}, keep: keeping(2, 0), gone: "d c",
		},
		"old ones expire, and the next is known": {
			all: checkpoints{taken("a", 1*h), taken("b", 2*h), taken("c", 72*h)}, keep: keeping(0, 72*h), gone: "c", next: 70 * h,
		},
		"what is about to expire does not yet": {
			all: checkpoints{taken("a", 1*h), taken("b", 72*h-time.Microsecond)}, keep: keeping(0, 72*h), next: time.Microsecond,
		},
		"the newest does not go because of its age": {
			all: checkpoints{taken("a", 100*h), taken("b", 200*h)}, keep: keeping(0, 72*h), gone: "b",
		},
		"with minCount 0 the newest goes, too": {
			all: checkpoints{taken("a", 100*h), taken("b", 200*h)}, keep: atLeast(0, keeping(0, 72*h)), gone: "b a",
		},
		"minCount keeps several old ones": {
			all: checkpoints{taken("a", 100*h), taken("b", 200*h), taken("c", 300*h)}, keep: atLeast(2, keeping(0, 72*h)), gone: "c",
		},
		"without minCount it is 1": {
			all: checkpoints{taken("a", 100*h)}, keep: &v1alpha1.CheckpointRetention{MaxAge: &metav1.Duration{Duration: h}},
		},
		"minCount does not keep what is surplus": {
			all: checkpoints{taken("a", 1*h), taken("b", 2*h)}, keep: atLeast(5, keeping(1, 0)), gone: "b",
		},
		"both limits apply": {
			all: checkpoints{taken("a", 1*h), taken("b", 80*h), taken("c", 81*h), taken("d", 82*h)}, keep: keeping(3, 72*h), gone: "d c b",
		},
		"one that is not ready neither counts nor goes": {
			all: checkpoints{taken("new", 0, notReady), taken("a", 1*h), taken("old", 900*h, notReady)}, keep: keeping(1, 72*h),
		},
		"one that is being deleted neither counts nor goes again": {
			all: checkpoints{taken("new", 0, deleting), taken("a", 100*h), taken("old", 900*h, deleting)}, keep: keeping(1, 72*h),
		},
		"each workload has its own": {
			all: checkpoints{taken("a", 1*h), taken("b", 2*h, of("db")), taken("c", 3*h), taken("d", 4*h, of("db"))}, keep: keeping(1, 0), gone: "d c",
		},
		"each kind of workload has its own": {
			all: checkpoints{taken("a", 1*h), taken("b", 2*h, func(c *v1alpha1.Checkpoint) { c.Status.Workload.Kind = "Job" })}, keep: keeping(1, 0),
		},
		"a new version of the workload's API does not matter": {
			all: checkpoints{taken("a", 1*h, func(c *v1alpha1.Checkpoint) { c.Status.Workload.APIVersion = "apps/v2" }), taken("b", 2*h)}, keep: keeping(1, 0), gone: "b",
		},
		"each container has its own": {
			all: checkpoints{
				taken("a", 1*h), taken("b", 2*h, func(c *v1alpha1.Checkpoint) { c.Spec.Target.ContainerName = "log" }),
				taken("c", 3*h, func(c *v1alpha1.Checkpoint) { c.Spec.Target.ContainerName = "*" }),
			}, keep: keeping(1, 0),
		},
		"the first container is the same one by its name": {
			all: checkpoints{taken("a", 1*h), taken("b", 2*h, func(c *v1alpha1.Checkpoint) { c.Spec.Target.ContainerName = "main" })}, keep: keeping(1, 0), gone: "b",
		},
		"a workload is the same one from another namespace": {
			all:  checkpoints{taken("a", 1*h), taken("b", 2*h, func(c *v1alpha1.Checkpoint) { c.Namespace, c.Spec.Target.Namespace = "operator", "team" })},
			keep: keeping(1, 0), gone: "b",
		},
		"a workload of another namespace is another one": {
			all: checkpoints{taken("a", 1*h), taken("b", 2*h, func(c *v1alpha1.Checkpoint) { c.Namespace = "other" })}, keep: keeping(1, 0),
		},
		"of two of one moment, one is kept, always the same": {
			all: checkpoints{taken("b", 1*h), taken("a", 1*h)}, keep: keeping(1, 0), gone: "a",
		},
		"a node whose clock is ahead does not have the newest for ever": {
			all: checkpoints{taken("ahead", 2*h, saidBy(9000*h)), taken("newest", 1*h)}, keep: keeping(1, 0), gone: "ahead",
		},
		"one that seems to be from the next seconds is the newest": {
			all: checkpoints{taken("newest", 3*h, saidBy(3*h+time.Second)), taken("older", 1*h)}, keep: keeping(1, 0), gone: "older",
		},
		"one from the future expires by when it was created": {
			all: checkpoints{taken("newest", 1*h), taken("ahead", 80*h, saidBy(9000*h))}, keep: keeping(0, 72*h), gone: "ahead",
		},
		"a node whose clock is behind does not lose the newest": {
			all: checkpoints{taken("older", 2*h), taken("newest", 1*h, saidBy(-9000*h))}, keep: keeping(1, 72*h), gone: "older",
		},
		"after a restored backup all are as new, and their own times count": {
			all: checkpoints{taken("older", 0, saidBy(-2*h)), taken("newer", 0, saidBy(-1*h))}, keep: keeping(1, 0), gone: "older",
		},
		"what says nothing of its workload is left alone": {
			all: checkpoints{taken("a", 1*h), taken("b", 900*h, func(c *v1alpha1.Checkpoint) { c.Status.Workload = nil })}, keep: keeping(1, 72*h),
		},
		"what says nothing of its time is left alone": {
			all: checkpoints{taken("a", 1*h), taken("b", 900*h, func(c *v1alpha1.Checkpoint) { c.Status.CheckpointTime = nil })}, keep: keeping(1, 72*h),
		},
	} {
		got := decide(row.all, row.keep, reading{noon, noon})
		if names := namesOf(got.expired); names != row.gone {
			t.Errorf("%s: %q are expired, want %q", name, names, row.gone)
		}
		var next time.Time
		if row.next != 0 {
			next = noon.Add(row.next)
		}
		if !got.next.Equal(next) {
			t.Errorf("%s: the next expires at %v, want %v", name, got.next, next)
		}
	}
}

// Whatever there is: the newest ready Checkpoint of each workload stays unless minCount is 0,
// exactly what exceeds a limit goes, nothing else is touched, and a second look finds
// nothing more to do.
func TestDecideOnRandomCheckpoints(t *testing.T) {
	for seed := range uint64(5000) {
		random := rand.New(rand.NewPCG(seed, 0))
		all, keep := randomCheckpoints(random), randomRetention(random)
		got := decide(all, keep, reading{noon, noon})
		gone := map[*v1alpha1.Checkpoint]bool{}
		for _, e := range got.expired {
			if gone[e.checkpoint] || !isReady(e.checkpoint) || isDeleting(e.checkpoint) {
				t.Fatalf("seed %d: %s must not go", seed, e.checkpoint.Name)
			}
			gone[e.checkpoint] = true
		}
		for _, workload := range []string{"web", "db"} {
			members := readyOf(all, workload)
			for newer, c := range members {
				surplus := keep.MaxCount != nil && newer >= int(*keep.MaxCount)
				old := keep.MaxAge != nil && newer >= int(*keep.MinCount) && noon.Sub(c.Status.CheckpointTime.Time) >= keep.MaxAge.Duration
				if gone[c] != (surplus || old) {
					t.Errorf("seed %d: %s with %d newer ones: gone %v, surplus %v, old %v", seed, c.Name, newer, gone[c], surplus, old)
				}
			}
			if len(members) > 0 && gone[members[0]] && *keep.MinCount > 0 {
				t.Errorf("seed %d: the newest of %s goes", seed, workload)
			}
		}
		left := slices.DeleteFunc(slices.Clone(all), func(c *v1alpha1.Checkpoint) bool { return gone[c] })
		if again := decide(left, keep, reading{noon, noon}); len(again.expired) > 0 || again.kept != got.kept || !again.next.Equal(got.next) {
			t.Errorf("seed %d: a second look finds %q, keeps %d of %d", seed, namesOf(again.expired), again.kept, got.kept)
		}
		if t.Failed() {
			return
		}
	}
}

func readyOf(all checkpoints, workload string) checkpoints {
	var ready checkpoints
	for _, c := range all {
		if c.Status.Workload.Name == workload && isReady(c) && !isDeleting(c) {
			ready = append(ready, c)
		}
	}
	slices.SortFunc(ready, func(a, b *v1alpha1.Checkpoint) int {
		return b.Status.CheckpointTime.Compare(a.Status.CheckpointTime.Time)
	})
	return ready
}

func randomCheckpoints(random *rand.Rand) checkpoints {
	var all checkpoints
	for i, minutes := range random.Perm(200)[:random.IntN(20)] {
		c := taken(fmt.Sprintf("c%d", i), time.Duration(minutes)*time.Minute, of([]string{"web", "db"}[random.IntN(2)]))
		switch random.IntN(6) {
		case 0:
			notReady(c)
		case 1:
			deleting(c)
		}
		all = append(all, c)
	}
	return all
}

func randomRetention(random *rand.Rand) *v1alpha1.CheckpointRetention {
	keep := &v1alpha1.CheckpointRetention{MinCount: ptr.To(random.Int32N(4))}
	kind := random.IntN(3)
	if kind != 0 {
		keep.MaxCount = ptr.To(1 + random.Int32N(6))
	}
	if kind != 1 {
		keep.MaxAge = &metav1.Duration{Duration: time.Duration(1+random.IntN(200)) * time.Minute}
	}
	return keep
}

func TestClocksThatDiffer(t *testing.T) {
	all := func() checkpoints { return checkpoints{taken("a", 1*h), taken("b", 72*h)} }
	for name, row := range map[string]struct {
		at   reading
		gone string
	}{
		"what only the clock that is ahead takes for old is kept": {reading{noon.Add(-time.Minute), noon}, ""},
		"what both clocks take for old goes":                      {reading{noon, noon.Add(9 * h)}, "b"},
	} {
		if got := namesOf(decide(all(), keeping(0, 72*h), row.at).expired); got != row.gone {
			t.Errorf("%s: %q are expired, want %q", name, got, row.gone)
		}
	}
	ahead := checkpoints{taken("newest", 3*h, saidBy(3*h+30*time.Minute)), taken("older", 1*h)}
	if got := namesOf(decide(ahead, keeping(1, 0), reading{noon, noon.Add(h)}).expired); got != "older" {
		t.Errorf("a time that is the future only by the clock that is behind counts: %q are expired", got)
	}
}
