package schedule

import (
	"fmt"
	"slices"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// noon is the time in tests. The daily run of fixtures is at two.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

var (
	twoToday     = noon.Add(-10 * time.Hour)
	twoYesterday = twoToday.AddDate(0, 0, -1)
	twoTomorrow  = twoToday.AddDate(0, 0, 1)
	longAgo      = noon.AddDate(0, -1, 0)
)

// daily returns a schedule whose run of today is complete.
func daily() *v1alpha1.SnapshotSchedule {
	return &v1alpha1.SnapshotSchedule{
		ObjectMeta: metav1.ObjectMeta{Name: "daily", Namespace: "team", UID: "schedule-uid", Generation: 1, CreationTimestamp: *metaTime(longAgo)},
		Spec:       v1alpha1.SnapshotScheduleSpec{Schedule: "0 2 * * *", TimeZone: "UTC", MaxConcurrent: 10},
		Status: v1alpha1.SnapshotScheduleStatus{
			ObservedGeneration: 1,
			Plan:               &v1alpha1.Plan{Schedule: "0 2 * * *", TimeZone: "UTC", Since: *metaTime(longAgo)},
			LastScheduleTime:   metaTime(twoToday),
			NextRunTime:        metaTime(twoTomorrow),
			Run:                &v1alpha1.Run{Time: *metaTime(twoToday), StartTime: *metaTime(twoToday), CompletionTime: metaTime(twoToday)},
		},
	}
}

// midRun returns a schedule with a run that started at noon and is not complete.
func midRun() *v1alpha1.SnapshotSchedule {
	s := daily()
	s.Status.Run = &v1alpha1.Run{Time: *metaTime(noon), StartTime: *metaTime(noon), Trigger: "go"}
	s.Spec.Trigger = "go"
	return s
}

// boundClaim returns a claim with a volume.
func boundClaim(name string) corev1.PersistentVolumeClaim {
	return corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "team", UID: types.UID(name + "-uid"), CreationTimestamp: *metaTime(longAgo)},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}
}

// snapshotAt is a ready snapshot of claim data, made at a time, for the run of then.
func snapshotAt(when time.Time, changes ...func(*childState)) *childState {
	s := &childState{
		childStatus: childStatus{target: "data-uid", history: "data-uid", targetName: "data", takenAt: when, ready: true, hasData: true},
		name:        "data-" + when.Format("0102-1504"), uid: types.UID(when.String()),
		run: formatTime(when), createdAt: when,
	}
	for _, change := range changes {
		change(s)
	}
	return s
}

func notReady(s *childState)    { s.ready = false }
func notAtDriver(s *childState) { s.ready, s.hasData = false, false }
func withError(s *childState)   { s.ready, s.hasData, s.errorMessage = false, false, "no room" }
func deleting(s *childState)    { s.deleting = true }

func claimGone(s *childState)   { s.targetGone = true }
func ofSuccessor(s *childState) { s.targetGone, s.ofSuccessor = true, true }
func fromFuture(s *childState)  { s.fromFuture = true }

// ofClaim makes it the snapshot of another claim.
func ofClaim(claim string) func(*childState) {
	return func(s *childState) {
		s.name, s.target, s.history, s.targetName = claim+s.name[4:], types.UID(claim+"-uid"), claim+"-uid", claim
	}
}

// sameClocks are two clocks with the same reading.
func sameClocks(when time.Time) clockReadings { return clockReadings{when, when} }

func snapshotNames(snapshots []*childState) []string {
	all := []string{}
	for _, s := range snapshots {
		all = append(all, s.name)
	}
	return all
}

func sortedNames(children []*childState) []string {
	all := snapshotNames(children)
	slices.Sort(all)
	return all
}

func stateOf(t testing.TB, s *v1alpha1.SnapshotSchedule, claims []corev1.PersistentVolumeClaim, snapshots ...*childState) *state {
	t.Helper()
	is := &state{schedule: snapshotKind{}.fromObject(s), children: snapshots, serverTime: noon}
	for i := range claims {
		is.targets = append(is.targets, claimTarget(&claims[i]))
	}
	if _, err := is.parseSpec(); err != nil {
		t.Fatal(err)
	}
	return is
}

// manyTargets returns claims with a volume.
func manyTargets(n int) []target {
	var all []target
	for _, c := range manyClaims(n) {
		all = append(all, claimTarget(&c))
	}
	return all
}

// newSnapshotFor returns the VolumeSnapshot of a claim for a run.
func newSnapshotFor(s *v1alpha1.SnapshotSchedule, c *corev1.PersistentVolumeClaim, run *v1alpha1.Run) *snapshotv1.VolumeSnapshot {
	t := claimTarget(c)
	return newChildFor(snapshotKind{}, snapshotKind{}.fromObject(s), &t, run).(*snapshotv1.VolumeSnapshot)
}

func manyClaims(n int) []corev1.PersistentVolumeClaim {
	var all []corev1.PersistentVolumeClaim
	for i := range n {
		all = append(all, boundClaim(fmt.Sprintf("c%d", i)))
	}
	return all
}
