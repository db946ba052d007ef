package schedule

import (
	"cmp"
	"context"
	"fmt"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// claimLabel on a VolumeSnapshot is the UID of its claim. Another claim may have the name by
// now.
const claimLabel = snapshot.ClaimUID

var snapshotTerms = &terms{
	resource: "snapshotschedules.holdfast.io", childResource: "volumesnapshots.snapshot.storage.k8s.io", controller: "schedule",
	target: "claim", targets: "claims", child: "snapshot", children: "snapshots", childKind: "VolumeSnapshot",
	selector: "spec.claimSelector", targetLabel: claimLabel,
	runStarted: "SnapshotRunStarted", runMissed: "SnapshotRunMissed",
	noTargets: v1alpha1.NoClaims, targetsFailing: v1alpha1.ClaimsFailing, childFailed: v1alpha1.SnapshotFailed, skipped: v1alpha1.NotBound,
	metrics: "holdfast_snapshotschedule", childrenMetric: "snapshots_total",
	scheduleLabel: "snapshotschedule", targetMetricLabel: "persistentvolumeclaim",
}

// snapshotKind is the kind SnapshotSchedule: it creates VolumeSnapshots of claims.
type snapshotKind struct{}

func (snapshotKind) getTerms() *terms { return snapshotTerms }

func (snapshotKind) newSchedule() client.Object         { return &v1alpha1.SnapshotSchedule{} }
func (snapshotKind) newScheduleList() client.ObjectList { return &v1alpha1.SnapshotScheduleList{} }
func (snapshotKind) newChild() client.Object            { return &snapshotv1.VolumeSnapshot{} }
func (snapshotKind) newChildList() client.ObjectList    { return &snapshotv1.VolumeSnapshotList{} }

func (snapshotKind) fromObject(o client.Object) *schedule {
	from := o.(*v1alpha1.SnapshotSchedule) //nolint:forcetypeassert // It is one that newSchedule has made.
	spec, status := &from.Spec, &from.Status
	s := &schedule{
		ObjectMeta: from.ObjectMeta, terms: snapshotTerms, object: o,
		Spec: scheduleSpec{
			Selector: spec.ClaimSelector, Schedule: spec.Schedule, TimeZone: spec.TimeZone,
			Jitter: spec.Jitter, StartingDeadline: spec.StartingDeadline, MaxConcurrent: spec.MaxConcurrent,
			Suspend: spec.Suspend, Trigger: spec.Trigger,
		},
		Status: scheduleStatus{
			ObservedGeneration: status.ObservedGeneration, Conditions: status.Conditions, Plan: status.Plan,
			LastScheduleTime: status.LastScheduleTime, LastMissedTime: status.LastMissedTime, NextRunTime: status.NextRunTime,
			LastTrigger: status.LastTrigger, Run: status.Run,
		},
	}
	if keep := spec.Retention; keep != nil {
		s.Spec.Retention = &retention{MaxCount: keep.MaxCount, MaxAge: keep.MaxAge}
	}
	for _, c := range status.Claims {
		s.Status.Targets = append(s.Status.Targets, targetStatus{
			Name: c.Name, UID: c.UID, LastRunTime: c.LastRunTime, LastChild: c.LastSnapshot, LastReadyChild: c.LastReadySnapshot,
			LastReadyTime: c.LastReadyTime, Reason: c.Reason, Message: c.Message, RetryTime: c.RetryTime,
		})
	}
	return s
}

func (snapshotKind) selectorOf(o client.Object) *metav1.LabelSelector {
	return &o.(*v1alpha1.SnapshotSchedule).Spec.ClaimSelector //nolint:forcetypeassert // It is one that newSchedule has made.
}

func (snapshotKind) setStatus(o client.Object, s *scheduleStatus) {
	to := &o.(*v1alpha1.SnapshotSchedule).Status //nolint:forcetypeassert // It is one that newSchedule has made.
	*to = v1alpha1.SnapshotScheduleStatus{
		ObservedGeneration: s.ObservedGeneration, Conditions: s.Conditions, Plan: s.Plan,
		LastScheduleTime: s.LastScheduleTime, LastMissedTime: s.LastMissedTime, NextRunTime: s.NextRunTime,
		LastTrigger: s.LastTrigger, Run: s.Run,
	}
	for _, t := range s.Targets {
		to.Claims = append(to.Claims, v1alpha1.ClaimStatus{
			Name: t.Name, UID: t.UID, LastRunTime: t.LastRunTime, LastSnapshot: t.LastChild, LastReadySnapshot: t.LastReadyChild,
			LastReadyTime: t.LastReadyTime, Reason: t.Reason, Message: t.Message, RetryTime: t.RetryTime,
		})
	}
}

// listTargets returns all claims of a namespace.
func (snapshotKind) listTargets(ctx context.Context, r *Reconciler, namespace string, _ labels.Selector, uncached bool) ([]target, error) {
	all := &corev1.PersistentVolumeClaimList{}
	if err := r.reader(uncached).List(ctx, all, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing the claims: %w", err)
	}
	targets := make([]target, len(all.Items))
	for i := range all.Items {
		targets[i] = claimTarget(&all.Items[i])
	}
	return targets, nil
}

func (snapshotKind) getTarget(ctx context.Context, r *Reconciler, key client.ObjectKey) (*target, error) {
	var claim *corev1.PersistentVolumeClaim
	if err := kube.GetIfExists(ctx, r.apiReader, key, &claim); err != nil || claim == nil {
		return nil, err
	}
	t := claimTarget(claim)
	return &t, nil
}

func claimTarget(c *corev1.PersistentVolumeClaim) target {
	t := target{Name: c.Name, UID: c.UID, Labels: c.Labels, CreatedAt: c.CreationTimestamp.Time, Deleting: c.DeletionTimestamp != nil}
	if c.Status.Phase != corev1.ClaimBound {
		t.SkipReason = v1alpha1.NotBound
		t.SkipMessage = fmt.Sprintf("the claim is %s: it has no volume", cmp.Or(c.Status.Phase, corev1.ClaimPending))
	}
	return t
}

// watchTargets reconciles the schedules that select a changed claim.
func (snapshotKind) watchTargets(b *builder.Builder, r *Reconciler) {
	b.Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(r.requestsForTarget), builder.WithPredicates(claimChanged(), kube.SkipInitialList()))
}

// childFor returns the VolumeSnapshot of a claim.
func (snapshotKind) childFor(s *schedule, t *target) client.Object {
	template := &s.object.(*v1alpha1.SnapshotSchedule).Spec.SnapshotTemplate //nolint:forcetypeassert // It is one that newSchedule has made.
	return &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{Labels: template.Labels, Annotations: template.Annotations},
		Spec: snapshotv1.VolumeSnapshotSpec{
			Source:                  snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: &t.Name},
			VolumeSnapshotClassName: template.SnapshotClassName,
		},
	}
}

// childStatus reads a VolumeSnapshot. Each claim has a history of its own.
func (snapshotKind) childStatus(o client.Object) childStatus {
	v := o.(*snapshotv1.VolumeSnapshot) //nolint:forcetypeassert // It is of a list that newChildList has made.
	claim := v.Labels[claimLabel]
	s := childStatus{target: types.UID(claim), targetName: ptr.Deref(v.Spec.Source.PersistentVolumeClaimName, ""), history: claim}
	status := v.Status
	if status == nil {
		return s
	}
	s.ready, s.started = ptr.Deref(status.ReadyToUse, false), status.BoundVolumeSnapshotContentName != nil
	if t := status.CreationTime; t != nil {
		s.hasData, s.takenAt = true, t.Time
	}
	if status.Error != nil && !s.ready {
		s.errorMessage = cmp.Or(ptr.Deref(status.Error.Message, ""), "the snapshot reports an error without a message")
	}
	return s
}
