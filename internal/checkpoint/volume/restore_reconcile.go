package volume

import (
	"context"
	"errors"
	"time"

	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// A restorer mounts the volumes of Checkpoints on the nodes of pods that are restored.
type restorer struct{ *Reconciler }

// setupRestores adds the controller to a manager.
func setupRestores(m ctrl.Manager, r *Reconciler) error {
	return ctrl.NewControllerManagedBy(m).
		Named("checkpoint-restore-volume").
		For(&v1alpha1.Checkpoint{}).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: r.options.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](r.options.RetryStart, r.options.RetryMax),
		}).
		Complete(kube.DrainOnStop(restorer{r}))
}

// Reconcile does the next step for each mount of a Checkpoint's volume.
func (r restorer) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var c *v1alpha1.Checkpoint
	if err := kube.GetIfExists(ctx, r.client, request.NamespacedName, &c); err != nil || c == nil || len(c.Status.RestoreMounts) == 0 || c.Status.Volume == nil {
		return reconcile.Result{}, err
	}
	var soonest time.Duration
	mounts := c.DeepCopy().Status.RestoreMounts // Those of c change.
	for i := range mounts {
		after, err := r.reconcileMount(ctx, c, &mounts[i])
		if kube.IsConflict(err) {
			return reconcile.Result{RequeueAfter: kube.RetryAfterConflict(r.options.RetryStart)}, nil
		}
		if err != nil {
			r.events.WarnIfDenied(c, kube.ReasonDenied, err)
			return reconcile.Result{}, err
		}
		if soonest == 0 || after < soonest {
			soonest = after
		}
	}
	return reconcile.Result{RequeueAfter: soonest}, nil
}

// reconcileMount does the next step for one mount, and returns when to look again.
func (r restorer) reconcileMount(ctx context.Context, c *v1alpha1.Checkpoint, m *v1alpha1.RestoreMount) (time.Duration, error) {
	s, err := r.observe(ctx, c, m)
	if err != nil {
		return 0, err
	}
	later := min(max(r.now().Sub(s.since())/4, r.options.RetryStart), r.options.RetryMax)
	switch next := decideRestore(s); next.action {
	case poll:
		return later, nil
	case wait:
		return later, r.record(ctx, c, s, next)
	case deletePod:
		return r.options.RetryStart, r.delete(ctx, s.pod)
	case createPod:
		return r.options.RetryStart, r.createPod(ctx, c, s)
	default:
		return r.options.RetryStart, r.record(ctx, c, s, next)
	}
}

// observe reads what decideRestore has to know.
func (r restorer) observe(ctx context.Context, c *v1alpha1.Checkpoint, m *v1alpha1.RestoreMount) (*restoreState, error) {
	there := forNode(c, m)
	s := &restoreState{mount: m, state: &state{checkpoint: there, now: r.now()}}
	v := there.Status.Volume
	if err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKey{Namespace: c.Namespace, Name: v.ClaimName}, &s.claim); err != nil {
		return nil, err
	}
	if err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKey{Namespace: c.Namespace, Name: v.PodName}, &s.pod); err != nil {
		return nil, err
	}
	if err := kube.GetIfExists(ctx, r.apiReader, restoredKey(m), &s.restored); err != nil {
		return nil, err
	}
	return s, r.observeTrouble(ctx, s.state)
}

// createPod creates the pod that mounts the claim. Its name follows from what is on record. What
// the API server denies, such as by a quota, is written into the status.
func (r restorer) createPod(ctx context.Context, c *v1alpha1.Checkpoint, s *restoreState) error {
	program, err := r.options.Program(ctx)
	if err != nil {
		return r.record(ctx, c, s, step{action: wait, message: err.Error()})
	}
	err = r.create(ctx, c, newPod(s.checkpoint, program))
	if kube.IsDenied(err) {
		return errors.Join(err, r.record(ctx, c, s, step{action: wait, message: kube.Message(err)}))
	}
	return err
}

func (r restorer) record(ctx context.Context, c *v1alpha1.Checkpoint, s *restoreState, next step) error {
	return kube.ChangeStatus(ctx, r.client, c, func(c *v1alpha1.Checkpoint) { s.record(c, next) })
}
