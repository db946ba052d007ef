package schedule

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// noon is when tests happen. The daily run of fixtures is at two.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

var (
	twoToday     = noon.Add(-10 * time.Hour)
	twoYesterday = twoToday.AddDate(0, 0, -1)
	twoTomorrow  = twoToday.AddDate(0, 0, 1)
	longAgo      = noon.AddDate(0, -1, 0)
)

// daily is a schedule whose last run was today's, and is complete.
func daily() *v1alpha1.SnapshotSchedule {
	return &v1alpha1.SnapshotSchedule{
		ObjectMeta: metav1.ObjectMeta{Name: "daily", Namespace: "team", UID: "schedule-uid", Generation: 1, CreationTimestamp: *stamped(longAgo)},
		Spec:       v1alpha1.SnapshotScheduleSpec{Schedule: "0 2 * * *", TimeZone: "UTC", MaxConcurrent: 10},
		Status: v1alpha1.SnapshotScheduleStatus{
			ObservedGeneration: 1,
			Plan:               &v1alpha1.Plan{Schedule: "0 2 * * *", TimeZone: "UTC", Since: *stamped(longAgo)},
			LastScheduleTime:   stamped(twoToday),
			NextRunTime:        stamped(twoTomorrow),
			Run:                &v1alpha1.Run{Time: *stamped(twoToday), StartTime: *stamped(twoToday), CompletionTime: stamped(twoToday)},
		},
	}
}

// running is a schedule in the middle of a run that began at noon.
func midRun() *v1alpha1.SnapshotSchedule {
	s := daily()
	s.Status.Run = &v1alpha1.Run{Time: *stamped(noon), StartTime: *stamped(noon), Trigger: "go"}
	s.Spec.Trigger = "go"
	return s
}

// bound is a claim with a volume.
func bound(name string) corev1.PersistentVolumeClaim {
	return corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "team", UID: types.UID(name + "-uid"), CreationTimestamp: *stamped(longAgo)},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}
}

// shotAt is a ready snapshot of claim data, made at a time, for the run of then.
func shotAt(when time.Time, changes ...func(*shot)) *shot {
	s := &shot{
		name: "data-" + when.Format("0102-1504"), uid: types.UID(when.String()), claim: "data-uid", claimName: "data",
		run: stamp(when), created: when, taken: when, ready: true, cut: true,
	}
	for _, change := range changes {
		change(s)
	}
	return s
}

func unready(s *shot)  { s.ready = false }
func uncut(s *shot)    { s.ready, s.cut = false, false }
func failing(s *shot)  { s.ready, s.cut, s.failure = false, false, "no room" }
func deleting(s *shot) { s.deleting = true }

func claimGone(s *shot)  { s.claimGone = true }
func successors(s *shot) { s.claimGone, s.another = true, true }
func ahead(s *shot)      { s.ahead = true }

// of makes it a snapshot of another claim.
func of(claim string) func(*shot) {
	return func(s *shot) {
		s.name, s.claim, s.claimName = claim+s.name[4:], types.UID(claim+"-uid"), claim
	}
}

// agreed are two clocks that say the same.
func agreed(when time.Time) clocks { return clocks{when, when} }

func names(shots []*shot) []string {
	all := []string{}
	for _, s := range shots {
		all = append(all, s.name)
	}
	return all
}

func observed(t testing.TB, s *v1alpha1.SnapshotSchedule, claims []corev1.PersistentVolumeClaim, shots ...*shot) *seen {
	t.Helper()
	is := &seen{schedule: s, claims: claims, shots: shots, server: noon}
	if _, err := is.read(); err != nil {
		t.Fatal(err)
	}
	return is
}

func manyClaims(n int) []corev1.PersistentVolumeClaim {
	var all []corev1.PersistentVolumeClaim
	for i := range n {
		all = append(all, bound(fmt.Sprintf("c%d", i)))
	}
	return all
}
