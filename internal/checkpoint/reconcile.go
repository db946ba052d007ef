package checkpoint

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// Reconciler assigns Checkpoints to nodes. All state that must survive a restart is in
// their status.
type Reconciler struct {
	client    client.Client
	apiReader client.Reader // uncached
	events    *kube.Events
	options   *Options
	now       func() time.Time
}

// Reconcile does the next step for one Checkpoint.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.observe(ctx, request.NamespacedName)
	if err != nil || s.checkpoint == nil {
		return reconcile.Result{}, err
	}
	after, err := r.execute(ctx, s, decide(s))
	if kube.IsConflict(err) {
		return reconcile.Result{RequeueAfter: kube.RetryAfterConflict(r.options.RetryStart)}, nil
	}
	return reconcile.Result{RequeueAfter: after}, r.reportDenied(ctx, s.checkpoint, err)
}

// reportDenied reports a write that the API server denies, as an event and, unless the
// Checkpoint is being deleted, in its status.
func (r *Reconciler) reportDenied(ctx context.Context, about *v1alpha1.Checkpoint, problem error) error {
	if !kube.IsDenied(problem) {
		return problem
	}
	r.events.Warning(about, kube.ReasonDenied, kube.Message(problem))
	if !about.DeletionTimestamp.IsZero() || about.Status.NodeName != "" {
		return problem
	}
	return errors.Join(problem, kube.ChangeStatus(ctx, r.client, about, func(c *v1alpha1.Checkpoint) {
		r.setCondition(c, v1alpha1.ConditionReady, metav1.ConditionFalse, step{reason: v1alpha1.ReasonPending, message: kube.Message(problem)})
		c.Status.WaitingFor = v1alpha1.WaitingForUser
	}))
}

// execute carries out a step. It returns after which time to look again; 0 to wait for an
// event.
func (r *Reconciler) execute(ctx context.Context, s *state, next step) (time.Duration, error) {
	switch next.action {
	case wait:
		return r.pollDelay(s.checkpoint), r.report(ctx, s.checkpoint, next)
	case fail:
		return 0, r.report(ctx, s.checkpoint, next)
	case assign:
		return 0, r.assign(ctx, s, next)
	case reassign:
		return 0, kube.ChangeStatus(ctx, r.client, s.checkpoint, func(c *v1alpha1.Checkpoint) {
			c.Status.NodeName, c.Status.WaitingFor = next.node, next.waitingFor
		})
	case release:
		return 0, kube.WrapWriteError(kube.RemoveFinalizer(ctx, r.client, s.checkpoint, v1alpha1.Finalizer), "removing the finalizer")
	case none:
	}
	return 0, nil
}

// pollDelay returns the pause until the next look at what is not watched: a quarter of the
// time for which the Checkpoint has been waiting for the same thing.
func (r *Reconciler) pollDelay(c *v1alpha1.Checkpoint) time.Duration {
	ready := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		return r.options.RetryStart
	}
	return min(max(r.now().Sub(ready.LastTransitionTime.Time)/4, r.options.RetryStart), r.options.RetryMax)
}

// report writes why a Checkpoint is not ready.
func (r *Reconciler) report(ctx context.Context, about *v1alpha1.Checkpoint, next step) error {
	err := kube.ChangeStatus(ctx, r.client, about, func(c *v1alpha1.Checkpoint) {
		r.setCondition(c, v1alpha1.ConditionReady, metav1.ConditionFalse, next)
		if next.action == fail {
			r.setCondition(c, v1alpha1.ConditionFailed, metav1.ConditionTrue, next)
		}
		c.Status.WaitingFor = next.waitingFor
	})
	if err == nil {
		r.events.Warning(about, next.reason, next.message)
	}
	return err
}

// setCondition sets a condition. The transition time changes with the reason, too: it is
// since when a Checkpoint waits for the same thing.
func (r *Reconciler) setCondition(c *v1alpha1.Checkpoint, kind string, status metav1.ConditionStatus, next step) {
	c.Status.ObservedGeneration = c.Generation
	before := meta.FindStatusCondition(c.Status.Conditions, kind)
	if before != nil && before.Status == status && before.Reason != next.reason {
		meta.RemoveStatusCondition(&c.Status.Conditions, kind)
	}
	kube.SetCondition(&c.Status.Conditions, c.Generation, metav1.Condition{
		Type: kind, Status: status, Reason: next.reason, Message: next.message, LastTransitionTime: metav1.NewTime(r.now()),
	})
}

// assign records what the Checkpoint is about. The finalizer comes first: as soon as the
// Checkpoint is assigned, there may be data.
func (r *Reconciler) assign(ctx context.Context, s *state, next step) error {
	if err := kube.AddFinalizer(ctx, r.client, s.checkpoint, v1alpha1.Finalizer); err != nil {
		return kube.WrapWriteError(err, "adding the finalizer")
	}
	return kube.ChangeStatus(ctx, r.client, s.checkpoint, func(c *v1alpha1.Checkpoint) {
		next.reason, next.message = v1alpha1.ReasonPending, "the agent of node "+next.node+" starts next"
		r.setCondition(c, v1alpha1.ConditionReady, metav1.ConditionFalse, next)
		c.Status.NodeName, c.Status.SourceNode, c.Status.PodUID = next.node, next.node, s.pod.UID
		c.Status.Workload, c.Status.WaitingFor = s.workload, v1alpha1.WaitingForNode
		r.recordStorage(c, s)
		c.Status.EphemeralVolumes = s.ephemeralVolumes().DeepCopy()
		c.Status.Containers = nil
		for _, name := range next.containers {
			c.Status.Containers = append(c.Status.Containers, v1alpha1.ContainerCheckpoint{Name: name})
		}
	})
}

// recordStorage records where the data go and how they are encrypted.
func (r *Reconciler) recordStorage(c *v1alpha1.Checkpoint, s *state) {
	namespace := func(fromPolicy bool) string {
		if fromPolicy {
			return r.options.Namespace
		}
		return c.Namespace
	}
	storage, fromPolicy := s.storage()
	c.Status.Storage, c.Status.StorageNamespace = storage.DeepCopy(), namespace(fromPolicy)
	if encryption, fromPolicy := s.encryption(); encryption != nil {
		c.Status.Encryption, c.Status.EncryptionNamespace = encryption.DeepCopy(), namespace(fromPolicy)
	}
}
