package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// Reconciler mounts and releases the volumes of Checkpoints. All state that must survive a
// restart is in their status.
type Reconciler struct {
	client    client.Client
	apiReader client.Reader // uncached
	events    *kube.Events
	options   *Options
	now       func() time.Time
}

// Reconcile does the next step for one Checkpoint.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var c *v1alpha1.Checkpoint
	if err := kube.GetIfExists(ctx, r.client, request.NamespacedName, &c); err != nil || c == nil || goalOf(c) == idle {
		return reconcile.Result{}, err
	}
	s, err := r.observe(ctx, c)
	if err == nil {
		next := decide(s)
		if err = r.execute(ctx, s, next); err == nil {
			return reconcile.Result{RequeueAfter: r.lookAgain(s, next)}, nil
		}
	}
	if kube.IsConflict(err) {
		return reconcile.Result{RequeueAfter: kube.RetryAfterConflict(r.options.RetryStart)}, nil
	}
	return reconcile.Result{}, r.reportDenied(ctx, c, err)
}

// lookAgain returns after which time to look again; 0 to wait for an event. What was
// written has an event only if it is the Checkpoint.
func (r *Reconciler) lookAgain(s *state, done step) time.Duration {
	switch done.action {
	case none, fail, recordNames, recordMount, forgetData, recordUnmount, finish:
		return 0
	case poll, wait:
		return min(max(r.now().Sub(waitsSince(s))/4, r.options.RetryStart), r.options.RetryMax)
	default:
		return r.options.RetryStart
	}
}

// waitsSince returns when the newest part of what is waited for has begun.
func waitsSince(s *state) time.Time {
	c := s.checkpoint
	newest := c.CreationTimestamp.Time
	later := func(at time.Time) {
		if at.After(newest) {
			newest = at
		}
	}
	for i := range c.Status.Conditions {
		later(c.Status.Conditions[i].LastTransitionTime.Time)
	}
	if at := c.DeletionTimestamp; at != nil {
		later(at.Time)
	}
	if s.pod != nil {
		later(s.pod.CreationTimestamp.Time)
	}
	return newest
}

// execute carries out a step.
func (r *Reconciler) execute(ctx context.Context, s *state, next step) error {
	c := s.checkpoint
	switch next.action {
	case wait, fail:
		return r.report(ctx, c, next)
	case createClaim:
		return r.create(ctx, c, newClaim(c))
	case createPod:
		return r.createPod(ctx, c)
	case deletePod:
		return r.delete(ctx, s.pod)
	case deleteClaim:
		return r.delete(ctx, s.claim)
	case finish:
		return r.finish(ctx, c)
	case recordNames:
		return r.recordNames(ctx, c)
	case none, poll:
		return nil
	default:
		return r.recordChange(ctx, s, next)
	}
}

// recordNames records what will be created, before it is.
func (r *Reconciler) recordNames(ctx context.Context, c *v1alpha1.Checkpoint) error {
	if c.DeletionTimestamp.IsZero() { // Otherwise it has the finalizer.
		if err := kube.AddFinalizer(ctx, r.client, c, v1alpha1.FinalizerVolume); err != nil {
			return kube.WrapWriteError(err, "adding the finalizer of the volume")
		}
	}
	return kube.ChangeStatus(ctx, r.client, c, func(c *v1alpha1.Checkpoint) {
		if c.Status.Volume == nil {
			c.Status.Volume = &v1alpha1.CheckpointVolume{}
		}
		v := c.Status.Volume
		v.ClaimName, v.PodName, v.PodUID = claimName(c), objectName(c), ""
		if c.DeletionTimestamp.IsZero() {
			c.Status.WaitingFor = v1alpha1.WaitingForNode
			r.setCondition(c, v1alpha1.ConditionReady, v1alpha1.ReasonVolumePending, fmt.Sprintf("pod %s mounts PersistentVolumeClaim %s on node %s", v.PodName, v.ClaimName, c.Status.NodeName))
		}
	})
}

// recordChange records what has become of the volume.
func (r *Reconciler) recordChange(ctx context.Context, s *state, next step) error {
	return kube.ChangeStatus(ctx, r.client, s.checkpoint, func(c *v1alpha1.Checkpoint) {
		v := c.Status.Volume
		switch next.action {
		case recordMount:
			v.PodUID, v.ClaimUID, v.VolumeName = s.pod.UID, s.claim.UID, s.claim.Spec.VolumeName
			if c.Status.Attempts == 0 && c.DeletionTimestamp.IsZero() {
				c.Status.WaitingFor = v1alpha1.WaitingForNode
				r.setCondition(c, v1alpha1.ConditionReady, v1alpha1.ReasonPending, "the agent of node "+c.Status.NodeName+" starts next")
			}
		case forgetData:
			for i := range c.Status.Containers {
				c.Status.Containers[i].Location = ""
			}
		default: // recordUnmount
			v.PodUID = ""
		}
	})
}

// createPod creates the pod that mounts the claim.
func (r *Reconciler) createPod(ctx context.Context, c *v1alpha1.Checkpoint) error {
	program, err := r.options.Program(ctx)
	if err != nil {
		return r.report(ctx, c, step{action: wait, waitingFor: v1alpha1.WaitingForUser, reason: v1alpha1.ReasonVolumePending, message: err.Error()})
	}
	return r.create(ctx, c, newPod(c, program))
}

// create creates an object. The Checkpoint of the cache may be outdated: then it is not
// known any more which object has to be deleted.
func (r *Reconciler) create(ctx context.Context, c *v1alpha1.Checkpoint, o client.Object) error {
	var live *v1alpha1.Checkpoint
	if err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKeyFromObject(c), &live); err != nil {
		return err
	}
	if live == nil || live.UID != c.UID || live.ResourceVersion != c.ResourceVersion {
		return kube.Conflict("Checkpoint %s/%s has changed since it was read", c.Namespace, c.Name)
	}
	err := r.client.Create(ctx, o)
	if apierrors.IsAlreadyExists(err) { // It is decided again, with the one that exists.
		return kube.Conflict("%T %s/%s exists", o, o.GetNamespace(), o.GetName())
	}
	if err != nil {
		return fmt.Errorf("creating %T %s/%s: %w", o, o.GetNamespace(), o.GetName(), err)
	}
	return nil
}

// delete deletes exactly the object that was read.
func (r *Reconciler) delete(ctx context.Context, o client.Object) error {
	err := kube.IgnoreGone(r.client.Delete(ctx, o, client.Preconditions{UID: ptr.To(o.GetUID())}))
	// After a conflict another one has the name: it is decided again.
	return kube.WrapWriteError(err, fmt.Sprintf("deleting %T %s/%s", o, o.GetNamespace(), o.GetName()))
}

// finish records that nothing is left to be released.
func (r *Reconciler) finish(ctx context.Context, c *v1alpha1.Checkpoint) error {
	if !c.DeletionTimestamp.IsZero() {
		return kube.WrapWriteError(kube.RemoveFinalizer(ctx, r.client, c, v1alpha1.FinalizerVolume), "removing the finalizer of the volume")
	}
	return kube.ChangeStatus(ctx, r.client, c, func(c *v1alpha1.Checkpoint) {
		v := c.Status.Volume
		v.PodName, v.PodUID = "", ""
		if deletesClaim(c) {
			v.ClaimName = ""
		}
	})
}

// report writes why a Checkpoint is not ready, or not gone.
func (r *Reconciler) report(ctx context.Context, about *v1alpha1.Checkpoint, next step) error {
	err := kube.ChangeStatus(ctx, r.client, about, func(c *v1alpha1.Checkpoint) {
		r.setCondition(c, v1alpha1.ConditionReady, next.reason, next.message)
		if next.action == fail {
			r.setCondition(c, v1alpha1.ConditionFailed, next.reason, next.message)
		}
		c.Status.WaitingFor = next.waitingFor
	})
	if err == nil {
		r.events.Warning(about, next.reason, next.message)
	}
	return err
}

// reportDenied also writes into the status what the API server denies, such as by a quota.
// A ready Checkpoint stays ready.
func (r *Reconciler) reportDenied(ctx context.Context, c *v1alpha1.Checkpoint, problem error) error {
	if !kube.IsDenied(problem) {
		return problem
	}
	if isComplete(c) && c.DeletionTimestamp.IsZero() {
		r.events.Warning(c, kube.ReasonDenied, kube.Message(problem))
		return problem
	}
	reason := v1alpha1.ReasonVolumePending
	if !c.DeletionTimestamp.IsZero() {
		reason = v1alpha1.ReasonDeleting
	}
	err := r.report(ctx, c, step{action: wait, waitingFor: v1alpha1.WaitingForUser, reason: reason, message: kube.Message(problem)})
	r.events.WarnIfDenied(c, kube.ReasonDenied, err) // The status cannot say so.
	return errors.Join(problem, err)
}

// setCondition sets Ready to False, or Failed to True.
func (r *Reconciler) setCondition(c *v1alpha1.Checkpoint, kind, reason, message string) {
	status := metav1.ConditionFalse
	if kind == v1alpha1.ConditionFailed {
		status = metav1.ConditionTrue
	}
	c.Status.ObservedGeneration = c.Generation
	kube.SetCondition(&c.Status.Conditions, c.Generation, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(r.now()),
	})
}
