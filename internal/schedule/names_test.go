package schedule

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

func TestNamesTellClaimsAndRunsApart(t *testing.T) {
	long := strings.Repeat("a-claim-with-quite-a-name.", 9)
	seen := map[string]string{}
	c := boundClaim("data")
	other := runAt(noon, noon)
	other.ID = "8"
	if nameFor("one", &c, runAt(noon, noon)) == nameFor("one", &c, other) {
		t.Error("two runs of the same time have snapshots of the same name")
	}
	for _, schedule := range []types.UID{"one", "two"} {
		for _, claim := range []string{"data", "data-", "d", long, long + "x", long + "y", "a." + strings.Repeat(".", 0) + strings.Repeat("b", 33) + ".c"} {
			for _, run := range []time.Time{noon, noon.Add(time.Second), twoTomorrow} {
				c := boundClaim(strings.TrimRight(claim, "."))
				name := nameFor(schedule, &c, runAt(run, run))
				if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 || len(name) > 63 {
					t.Errorf("%s: %d characters, %v", name, len(name), problems)
				}
				what := string(schedule) + claim + run.String()
				if other, taken := seen[name]; taken {
					t.Errorf("%s is of %s and of %s", name, what, other)
				}
				seen[name] = what
				if again := nameFor(schedule, &c, runAt(run.In(time.FixedZone("", 3600)), run)); again != name {
					t.Errorf("the same is once %s and once %s", name, again)
				}
			}
		}
	}
}

func TestAClaimThatTookAnothersNameHasSnapshotsOfOtherNames(t *testing.T) {
	a, b := boundClaim("data"), boundClaim("data")
	b.UID = "another"
	if x, y := nameFor("s", &a, runAt(noon, noon)), nameFor("s", &b, runAt(noon, noon)); x == y {
		t.Error(x)
	}
}

func TestNamesAreReadable(t *testing.T) {
	c := boundClaim("data")
	if name := nameFor("s", &c, runAt(noon, noon)); !strings.HasPrefix(name, "data-20261121-120000-") {
		t.Error(name)
	}
}

func TestNewSnapshot(t *testing.T) {
	s := daily()
	s.Spec.SnapshotTemplate = v1alpha1.SnapshotTemplate{
		Labels: map[string]string{"team": "red"}, Annotations: map[string]string{"ticket": "7"}, SnapshotClassName: ptr.To("fast"),
	}
	claim := boundClaim("data")
	got := newSnapshotFor(s, &claim, runAt(noon, noon))
	if diff := cmp.Diff(map[string]string{"team": "red", nameLabel: "daily", uidLabel: "schedule-uid", claimLabel: "data-uid"}, got.Labels); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"ticket": "7", runAnnotation: "2026-11-21T12:00:00Z"}, got.Annotations); diff != "" {
		t.Error(diff)
	}
	if len(got.OwnerReferences) > 0 || *got.Spec.Source.PersistentVolumeClaimName != "data" || *got.Spec.VolumeSnapshotClassName != "fast" {
		t.Errorf("%+v", got)
	}
	if len(s.Spec.SnapshotTemplate.Labels) != 1 || len(s.Spec.SnapshotTemplate.Annotations) != 1 {
		t.Error("the template was changed")
	}
	for name, change := range map[string]func(){
		"of another schedule": func() { got.Labels[uidLabel] = "x" }, "of another claim": func() { got.Labels[claimLabel] = "x" },
		"of another run": func() { got.Annotations[runAnnotation] = "x" }, "of another run of its time": func() { got.Annotations[runIDAnnotation] = "x" },
	} {
		got = newSnapshotFor(s, &claim, runAt(noon, noon))
		if !isSameChild(snapshotTerms, got, newSnapshotFor(s, &claim, runAt(noon, noon))) {
			t.Error("what is there already is not known again")
		}
		if change(); isSameChild(snapshotTerms, got, newSnapshotFor(s, &claim, runAt(noon, noon))) {
			t.Errorf("one %s counts as ours", name)
		}
	}
}

// nameFor returns the name of a claim's snapshot.
func nameFor(schedule types.UID, c *corev1.PersistentVolumeClaim, run *v1alpha1.Run) string {
	t := claimTarget(c)
	return childName(schedule, &t, run)
}
