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

// What a schedule writes onto its snapshots.
const (
	scheduleClaim = "schedule.holdfast.io/claim-uid"
	scheduleRun   = "schedule.holdfast.io/run"
)

// trigger has a schedule of the run's claims, which is made if it is not there,
// take one snapshot of each. It keeps one of each.
func trigger(value string) act {
	return func(ctx context.Context, r *run) {
		r.mu.Lock()
		r.trigger = value
		r.triggers++
		first := r.triggers == 1
		r.mu.Unlock()
		schedule := r.snapshotSchedule()
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
			r.complain(err)
		}
		r.trace.note("trigger %s was given", value)
	}
}

// snapshotSchedule is the run's.
func (r *run) snapshotSchedule() *v1alpha1.SnapshotSchedule {
	return &v1alpha1.SnapshotSchedule{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: r.name}}
}

// dropSchedule deletes the run's schedule. Its snapshots stay, and are from then on
// as if users had made them.
func (r *run) dropSchedule(ctx context.Context) {
	if !r.scenario.scheduled {
		return
	}
	r.mu.Lock()
	r.trigger = ""
	r.mu.Unlock()
	if err := r.api.Delete(ctx, r.snapshotSchedule()); client.IgnoreNotFound(err) != nil {
		r.complain(err)
	}
	there, err := r.snapshots(ctx)
	if err != nil {
		r.complain(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range there {
		r.kept[there[i].Name] = true
	}
}

// scheduled are the snapshots that are wanted by the run's schedule: of each wanted
// claim that of its last run. It tells which are missing, and whether the run was
// not of the last trigger.
func (s *state) scheduled(ctx context.Context, r *run, want map[string]types.UID) (kept map[string]bool, wrong []string) {
	r.mu.Lock()
	value, most := r.trigger, r.triggers*len(want)
	asked := len(r.asks)
	r.mu.Unlock()
	if value == "" {
		return nil, nil
	}
	if asked > most {
		wrong = append(wrong, fmt.Sprintf("%d snapshots were cut, and %d were to be", asked, most))
	}
	schedule := r.snapshotSchedule()
	if err := r.api.Get(ctx, client.ObjectKeyFromObject(schedule), schedule); err != nil {
		return nil, append(wrong, fmt.Sprintf("the schedule cannot be read: %v", err))
	}
	last := schedule.Status.Run
	if schedule.Status.LastTrigger != value || last == nil || last.CompletionTime == nil {
		return nil, append(wrong, fmt.Sprintf("the schedule has not answered trigger %s: %s", value, said(&schedule.Status)))
	}
	kept = map[string]bool{}
	for name, uid := range want {
		of := 0
		for i := range s.snapshots {
			if v := &s.snapshots[i]; v.Labels[scheduleClaim] == string(uid) && ofRun(v, last) {
				kept[v.Name], of = true, of+1
			}
		}
		if of != 1 {
			wrong = append(wrong, fmt.Sprintf("claim %s has %d snapshots of the last run", name, of))
		}
	}
	return kept, wrong
}

func ofRun(v *snapshotv1.VolumeSnapshot, one *v1alpha1.Run) bool {
	return v.Annotations[scheduleRun] == one.Time.UTC().Format(time.RFC3339)
}

// clearSchedules removes what a run that failed has left in the cluster.
func (s *stage) clearSchedules(ctx context.Context) error {
	if !s.scenario.scheduled {
		return nil
	}
	return client.IgnoreNotFound(s.api.DeleteAllOf(ctx, &v1alpha1.SnapshotSchedule{}, client.InNamespace(s.Namespace)))
}
