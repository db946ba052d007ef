package crash

import (
	"context"
	"fmt"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// A schedule's label and annotation on its snapshots.
const (
	scheduleClaim = "schedule.holdfast.io/claim-uid"
	scheduleRun   = "schedule.holdfast.io/run"
)

// triggerSchedule makes a schedule take one snapshot of each claim of the run. The
// first call creates the schedule, which retains one snapshot of each claim.
func triggerSchedule(value string) step {
	return func(ctx context.Context, r *run) {
		r.mu.Lock()
		r.trigger = value
		r.triggers++
		first := r.triggers == 1
		r.mu.Unlock()
		schedule := r.newSchedule()
		var err error
		if first {
			schedule.Spec = v1alpha1.SnapshotScheduleSpec{
				Schedule: "@yearly", Trigger: value, Retention: &v1alpha1.Retention{MaxCount: ptr.To[int32](1)},
				ClaimSelector:    metav1.LabelSelector{MatchLabels: map[string]string{runLabel: r.name}},
				SnapshotTemplate: v1alpha1.SnapshotTemplate{SnapshotClassName: &r.Namespace},
			}
			err = r.api.Create(ctx, schedule)
		} else {
			err = r.api.Patch(ctx, schedule, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"trigger":%q}}`, value)))
		}
		if err != nil {
			r.reportViolation(err)
		}
		r.trace.note("trigger %s was set", value)
	}
}

// newSchedule returns the run's schedule, with its name only.
func (r *run) newSchedule() *v1alpha1.SnapshotSchedule {
	return &v1alpha1.SnapshotSchedule{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: r.name}}
}

// deleteSchedule deletes the run's schedule. Its snapshots stay, as if users had
// created them.
func (r *run) deleteSchedule(ctx context.Context) {
	if !r.scenario.scheduled {
		return
	}
	r.mu.Lock()
	r.trigger = ""
	r.mu.Unlock()
	if err := r.api.Delete(ctx, r.newSchedule()); client.IgnoreNotFound(err) != nil {
		r.reportViolation(err)
	}
	there, err := r.listSnapshots(ctx)
	if err != nil {
		r.reportViolation(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range there {
		r.wantedSnapshots[there[i].Name] = true
	}
}

// scheduledSnapshots returns the snapshots that the schedule must retain: for each
// wanted claim the one of the last run. It also returns what is missing, and whether
// the last run does not belong to the last trigger.
func (s *clusterState) scheduledSnapshots(ctx context.Context, r *run, want map[string]types.UID) (retained map[string]bool, wrong []string) {
	r.mu.Lock()
	value, most := r.trigger, r.triggers*len(want)
	taken := len(r.requestedNames)
	r.mu.Unlock()
	if value == "" {
		return nil, nil
	}
	if taken > most {
		wrong = append(wrong, fmt.Sprintf("%d snapshots were taken, want at most %d", taken, most))
	}
	schedule := r.newSchedule()
	if err := r.api.Get(ctx, client.ObjectKeyFromObject(schedule), schedule); err != nil {
		return nil, append(wrong, fmt.Sprintf("the schedule cannot be read: %v", err))
	}
	last := schedule.Status.Run
	if schedule.Status.LastTrigger != value || last == nil || last.CompletionTime == nil {
		return nil, append(wrong, fmt.Sprintf("the schedule has not completed trigger %s: %s", value, toJSON(&schedule.Status)))
	}
	retained = map[string]bool{}
	for name, uid := range want {
		of := 0
		for i := range s.snapshots {
			if v := &s.snapshots[i]; v.Labels[scheduleClaim] == string(uid) && isOfRun(v, last) {
				retained[v.Name], of = true, of+1
			}
		}
		if of != 1 {
			wrong = append(wrong, fmt.Sprintf("claim %s has %d snapshots of the last run", name, of))
		}
	}
	return retained, wrong
}

func isOfRun(v *snapshotv1.VolumeSnapshot, one *v1alpha1.Run) bool {
	return v.Annotations[scheduleRun] == one.Time.UTC().Format(time.RFC3339)
}

// cleanUpSchedules deletes what a failed run has left of schedules.
func (s *environment) cleanUpSchedules(ctx context.Context) error {
	if !s.scenario.scheduled {
		return nil
	}
	return client.IgnoreNotFound(s.api.DeleteAllOf(ctx, &v1alpha1.SnapshotSchedule{}, client.InNamespace(s.Namespace)))
}
