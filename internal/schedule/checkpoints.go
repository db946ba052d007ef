package schedule

import (
	"cmp"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"

	checkpointv1alpha1 "github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/api/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// podLabel on a Checkpoint is the UID of the pod for which it was created.
const podLabel = "schedule.holdfast.io/pod-uid"

// failedHistory is the history of all failed Checkpoints of a schedule.
const failedHistory = "failed"

var checkpointTerms = &terms{
	resource: "checkpointschedules.checkpoint.example.com", childResource: "checkpoints.checkpoint.example.com", controller: "checkpointschedule",
	target: "pod", targets: "pods", child: "Checkpoint", children: "Checkpoints", childKind: "Checkpoint",
	selector: "spec.podSelector", targetLabel: podLabel, sharedHistory: true, uncachedTargets: true,
	runStarted: "CheckpointRunStarted", runMissed: "CheckpointRunMissed",
	noTargets: checkpointv1alpha1.ReasonNoPods, targetsFailing: checkpointv1alpha1.ReasonPodsFailing,
	childFailed: checkpointv1alpha1.ReasonFailed, skipped: checkpointv1alpha1.ReasonPodNotRunning,
	metrics: "holdfast_checkpointschedule", childrenMetric: "checkpoints_total",
	scheduleLabel: "checkpointschedule", targetMetricLabel: "pod",
}

// checkpointKind is the kind CheckpointSchedule: it creates Checkpoints of pods.
//
// Pods are not watched: a cache of all pods of a cluster would be most of the program. They are
// listed when a schedule is reconciled, with its selector.
type checkpointKind struct{}

func (checkpointKind) getTerms() *terms { return checkpointTerms }

func (checkpointKind) newSchedule() client.Object { return &checkpointv1alpha1.CheckpointSchedule{} }
func (checkpointKind) newScheduleList() client.ObjectList {
	return &checkpointv1alpha1.CheckpointScheduleList{}
}
func (checkpointKind) newChild() client.Object         { return &checkpointv1alpha1.Checkpoint{} }
func (checkpointKind) newChildList() client.ObjectList { return &checkpointv1alpha1.CheckpointList{} }

func (checkpointKind) fromObject(o client.Object) *schedule {
	from := o.(*checkpointv1alpha1.CheckpointSchedule) //nolint:forcetypeassert // It is one that newSchedule has made.
	spec, status := &from.Spec, &from.Status
	s := &schedule{
		ObjectMeta: from.ObjectMeta, terms: checkpointTerms, object: o,
		Spec: scheduleSpec{
			Selector: spec.PodSelector, Schedule: spec.Schedule, TimeZone: spec.TimeZone,
			Jitter: spec.Jitter, StartingDeadline: spec.StartingDeadline, MaxConcurrent: spec.MaxConcurrent,
			AllowConcurrent: spec.ConcurrencyPolicy == checkpointv1alpha1.AllowConcurrent,
			Suspend:         spec.Suspend, Trigger: spec.Trigger,
		},
		Status: scheduleStatus{
			ObservedGeneration: status.ObservedGeneration, Conditions: status.Conditions, Plan: (*v1alpha1.Plan)(status.Plan),
			LastScheduleTime: status.LastScheduleTime, LastMissedTime: status.LastMissedTime, NextRunTime: status.NextRunTime,
			LastTrigger: status.LastTrigger, Run: (*v1alpha1.Run)(status.Run),
		},
	}
	if keep := spec.Retention; keep != nil {
		s.Spec.Retention = &retention{MaxCount: keep.MaxCount, MaxAge: keep.MaxAge, MaxFailed: keep.MaxFailedCount}
	}
	for _, p := range status.Pods {
		s.Status.Targets = append(s.Status.Targets, targetStatus{
			Name: p.Name, UID: p.UID, LastRunTime: p.LastRunTime, LastChild: p.LastCheckpoint, LastReadyChild: p.LastReadyCheckpoint,
			LastReadyTime: p.LastReadyTime, Reason: p.Reason, Message: p.Message, RetryTime: p.RetryTime,
		})
	}
	return s
}

func (checkpointKind) selectorOf(o client.Object) *metav1.LabelSelector {
	return &o.(*checkpointv1alpha1.CheckpointSchedule).Spec.PodSelector //nolint:forcetypeassert // It is one that newSchedule has made.
}

func (checkpointKind) setStatus(o client.Object, s *scheduleStatus) {
	to := &o.(*checkpointv1alpha1.CheckpointSchedule).Status //nolint:forcetypeassert // It is one that newSchedule has made.
	*to = checkpointv1alpha1.CheckpointScheduleStatus{
		ObservedGeneration: s.ObservedGeneration, Conditions: s.Conditions, Plan: (*checkpointv1alpha1.SchedulePlan)(s.Plan),
		LastScheduleTime: s.LastScheduleTime, LastMissedTime: s.LastMissedTime, NextRunTime: s.NextRunTime,
		LastTrigger: s.LastTrigger, Run: (*checkpointv1alpha1.ScheduleRun)(s.Run),
	}
	for _, t := range s.Targets {
		to.Pods = append(to.Pods, checkpointv1alpha1.ScheduledPod{
			Name: t.Name, UID: t.UID, LastRunTime: t.LastRunTime, LastCheckpoint: t.LastChild, LastReadyCheckpoint: t.LastReadyChild,
			LastReadyTime: t.LastReadyTime, Reason: t.Reason, Message: t.Message, RetryTime: t.RetryTime,
		})
	}
}

// listTargets lists the selected pods from the API server. If its answer need not be current, it
// comes from the API server's own cache and costs no read of etcd.
func (checkpointKind) listTargets(ctx context.Context, r *Reconciler, namespace string, selector labels.Selector, uncached bool) ([]target, error) {
	if _, selectable := selector.Requirements(); !selectable {
		return nil, nil // As text, it would be a selector that lists everything.
	}
	options := &client.ListOptions{Namespace: namespace, LabelSelector: selector}
	if !uncached {
		options.Raw = &metav1.ListOptions{ResourceVersion: "0"}
	}
	all := &corev1.PodList{}
	if err := r.apiReader.List(ctx, all, options); err != nil {
		return nil, fmt.Errorf("listing the pods: %w", err)
	}
	targets := make([]target, len(all.Items))
	for i := range all.Items {
		targets[i] = podTarget(&all.Items[i])
	}
	return targets, nil
}

func (checkpointKind) getTarget(ctx context.Context, r *Reconciler, key client.ObjectKey) (*target, error) {
	var pod *corev1.Pod
	if err := kube.GetIfExists(ctx, r.apiReader, key, &pod); err != nil || pod == nil {
		return nil, err
	}
	t := podTarget(pod)
	return &t, nil
}

func podTarget(p *corev1.Pod) target {
	t := target{Name: p.Name, UID: p.UID, Labels: p.Labels, CreatedAt: p.CreationTimestamp.Time, Deleting: p.DeletionTimestamp != nil}
	if p.Status.Phase != corev1.PodRunning {
		t.SkipReason = checkpointv1alpha1.ReasonPodNotRunning
		t.SkipMessage = fmt.Sprintf("the pod is %s: there is nothing to checkpoint", cmp.Or(p.Status.Phase, corev1.PodPending))
	}
	return t
}

func (checkpointKind) watchTargets(*builder.Builder, *Reconciler) {}

// childFor returns the Checkpoint of a pod.
func (checkpointKind) childFor(s *schedule, t *target) client.Object {
	template := s.object.(*checkpointv1alpha1.CheckpointSchedule).Spec.CheckpointTemplate.DeepCopy() //nolint:forcetypeassert // It is one that newSchedule has made.
	return &checkpointv1alpha1.Checkpoint{
		ObjectMeta: metav1.ObjectMeta{Labels: template.Labels, Annotations: template.Annotations},
		Spec: checkpointv1alpha1.CheckpointSpec{
			Target:    checkpointv1alpha1.CheckpointTarget{PodName: t.Name, ContainerName: template.ContainerName},
			PolicyRef: template.PolicyRef, Storage: template.Storage, Encryption: template.Encryption,
			EstablishedTCP: template.EstablishedTCP, MaxFrozenTime: template.MaxFrozenTime,
		},
	}
}

// childStatus reads a Checkpoint. Once the operator has assigned it, it says itself of which pod
// and workload it is: a pod with the same name may have taken the place of the one in the label.
func (checkpointKind) childStatus(o client.Object) childStatus {
	c := o.(*checkpointv1alpha1.Checkpoint) //nolint:forcetypeassert // It is of a list that newChildList has made.
	status := &c.Status
	s := childStatus{
		target: cmp.Or(status.PodUID, types.UID(c.Labels[podLabel])), targetName: c.Spec.Target.PodName,
		ready:  meta.IsStatusConditionTrue(status.Conditions, checkpointv1alpha1.ConditionReady),
		failed: meta.IsStatusConditionTrue(status.Conditions, checkpointv1alpha1.ConditionFailed),

		started: status.NodeName != "", hasData: status.CheckpointTime != nil,
	}
	s.targetCertain = status.PodUID != "" || s.failed
	s.history, s.errorMessage = checkpointHistory(c, s.failed), checkpointProblem(status)
	if status.CheckpointTime != nil {
		s.takenAt = status.CheckpointTime.Time
	}
	return s
}

// checkpointHistory returns the history of a Checkpoint: ready ones replace those of the same
// workload, because pods come and go. Failed ones replace each other.
func checkpointHistory(c *checkpointv1alpha1.Checkpoint, failed bool) string {
	switch w := c.Status.Workload; {
	case failed:
		return failedHistory
	case w != nil:
		return w.APIVersion + "/" + w.Kind + "/" + w.Name
	}
	return "v1/Pod/" + c.Spec.Target.PodName
}

// checkpointProblem returns why a Checkpoint has failed or makes no progress, or "".
func checkpointProblem(status *checkpointv1alpha1.CheckpointStatus) string {
	ready := meta.FindStatusCondition(status.Conditions, checkpointv1alpha1.ConditionReady)
	if ready == nil || ready.Status == metav1.ConditionTrue {
		return ""
	}
	switch ready.Reason {
	case checkpointv1alpha1.ReasonPending, checkpointv1alpha1.ReasonInProgress:
		return ""
	}
	return ready.Reason + ": " + ready.Message
}
