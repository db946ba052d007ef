package node

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// Reconciler makes, stores and deletes the Checkpoints of one node.
type Reconciler struct {
	client    client.Client
	apiReader client.Reader // uncached
	events    *kube.Events
	options   *Options
	stores    Stores
	probes    *prober
	staged    staged
	now       func() time.Time
}

// Reconcile does the next step for one Checkpoint.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s := &state{}
	if err := kube.GetIfExists(ctx, r.client, request.NamespacedName, &s.checkpoint); err != nil {
		return reconcile.Result{}, err
	}
	if s.checkpoint == nil { // Somebody else may have removed the finalizer.
		return reconcile.Result{}, r.discardUnowned(ctx)
	}
	if next := r.decide(s); next.action == none || next.action == wait {
		return reconcile.Result{RequeueAfter: next.after}, nil
	}
	// The cache may be stale. What it calls unfinished may be ready: another upload would
	// begin by deleting the data.
	current := &state{}
	if err := kube.GetIfExists(ctx, r.apiReader, request.NamespacedName, &current.checkpoint); err != nil || current.checkpoint == nil {
		return reconcile.Result{}, err
	}
	err := r.execute(ctx, current, r.decide(current))
	if kube.IsConflict(err) {
		return reconcile.Result{RequeueAfter: kube.RetryAfterConflict(r.options.RetryStart)}, nil
	}
	if err != nil {
		r.events.WarnIfDenied(current.checkpoint, kube.ReasonDenied, err)
		return reconcile.Result{}, err
	}
	return r.requeue(current), nil
}

// requeue returns when to look again at a Checkpoint that was just reconciled. There is no
// event for that if its status is the same as before: its times have seconds only.
func (r *Reconciler) requeue(s *state) reconcile.Result {
	switch next := r.decide(s); next.action {
	case none:
		return reconcile.Result{}
	case wait:
		return reconcile.Result{RequeueAfter: next.after}
	default:
		return reconcile.Result{RequeueAfter: r.options.RetryStart}
	}
}

// decide decides about a Checkpoint and what is on the node of it. Some dumps of it are
// none: after a crash the engine recovers those that no upload has consumed.
func (r *Reconciler) decide(s *state) step {
	staged := len(r.staged.get(s.checkpoint.UID))
	s.dumped, s.complete = staged > 0, staged > 0 && staged == len(s.checkpoint.Status.Containers)
	return decide(s, r.options, r.now())
}

func (r *Reconciler) execute(ctx context.Context, s *state, next step) error {
	c := s.checkpoint
	switch next.action {
	case dump:
		return r.dump(ctx, c)
	case save:
		return r.save(ctx, c)
	case giveUp:
		return r.fail(ctx, c, reasonOf(c), fmt.Errorf("the agent of node %s died in the last of %d attempts, without another result", r.options.Node, c.Status.Attempts))
	case discard:
		if err := r.staged.discard(c.UID); err != nil {
			return fmt.Errorf("removing the dumps of Checkpoint %s/%s from the node: %w", c.Namespace, c.Name, err)
		}
	case deleteData:
		return r.delete(ctx, c)
	case wait, none:
	}
	return nil
}

// reasonOf returns the reason why a Checkpoint is not ready, for one that is given up.
func reasonOf(c *v1alpha1.Checkpoint) string {
	if ready := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady); ready != nil && ready.Reason != v1alpha1.ReasonInProgress {
		return ready.Reason
	}
	return v1alpha1.ReasonFailed
}

// setReady sets the condition Ready, without a time of transition if only the message
// differs.
func (r *Reconciler) setReady(c *v1alpha1.Checkpoint, status metav1.ConditionStatus, reason, message string) {
	r.setCondition(c, v1alpha1.ConditionReady, status, reason, message)
}

func (r *Reconciler) setCondition(c *v1alpha1.Checkpoint, kind string, status metav1.ConditionStatus, reason, message string) {
	c.Status.ObservedGeneration = c.Generation
	kube.SetCondition(&c.Status.Conditions, c.Generation, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(r.now()),
	})
}

// fail records that the Checkpoint will never be ready, and removes what it has left on
// the node and in its store. If the store cannot be used, that is tried again when the
// Checkpoint is deleted.
func (r *Reconciler) fail(ctx context.Context, about *v1alpha1.Checkpoint, reason string, problem error) error {
	if err := r.staged.discard(about.UID); err != nil {
		return fmt.Errorf("removing the dumps from the node: %w", err)
	}
	if err := r.deleteStored(ctx, about); err != nil {
		problem = fmt.Errorf("%w; the store may have a part of it until the Checkpoint is deleted: %w", problem, err)
	}
	err := kube.ChangeStatus(ctx, r.client, about, func(c *v1alpha1.Checkpoint) {
		r.setReady(c, metav1.ConditionFalse, reason, problem.Error())
		r.setCondition(c, v1alpha1.ConditionFailed, metav1.ConditionTrue, reason, problem.Error())
		c.Status.NextAttemptTime, c.Status.WaitingFor = nil, v1alpha1.WaitingForUser
	})
	if err == nil {
		r.events.Warning(about, reason, problem.Error())
	}
	return err
}

// retry records a failure that may pass, and when the next attempt starts.
func (r *Reconciler) retry(ctx context.Context, about *v1alpha1.Checkpoint, f failure) error {
	err := kube.ChangeStatus(ctx, r.client, about, func(c *v1alpha1.Checkpoint) {
		r.setReady(c, metav1.ConditionFalse, f.reason, f.problem.Error())
		at := metav1.NewTime(r.now().Add(f.after))
		c.Status.NextAttemptTime, c.Status.WaitingFor, c.Status.Attempts = &at, f.waitingFor, f.attempts
	})
	if err == nil {
		r.events.Warning(about, f.reason, f.problem.Error())
	}
	return err
}

// A failure is one that may pass.
type failure struct {
	reason, waitingFor string
	after              time.Duration
	problem            error
	// attempts is how many attempts there were, in which containers may have been frozen.
	attempts int32
}
