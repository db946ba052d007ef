package bind

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// youth is how old a content can be whose snapshot is lost: that happens while the
// content is made.
const youth = time.Minute

// A lost snapshot went past its finalizers: an API server that is deleting an
// object without any has no eye for one that comes at that moment. Its content must
// be let go now. Later nobody can tell it from one that was copied from another
// cluster, whose snapshot must not be deleted.
type lost struct {
	key     client.ObjectKey
	uid     types.UID
	content string
}

// lostOnes lets the contents of lost snapshots go.
type lostOnes struct{ *Reconciler }

// FindLost adds the controller that does so.
func (r *Reconciler) FindLost(m ctrl.Manager) error {
	return builder.TypedControllerManagedBy[lost](m).
		Named("lost-"+r.Name).
		Watches(r.kind.New(), handler.TypedFuncs[client.Object, lost]{
			DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[client.Object], queue workqueue.TypedRateLimitingInterface[lost]) {
				if one := r.lostBy(r.kind.Read(e.Object)); one != nil && !e.DeleteStateUnknown {
					queue.Add(*one)
				}
			},
		}).
		WithOptions(controller.TypedOptions[lost]{
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[lost](r.options.RetryStart, r.options.RetryMax),
		}).
		Complete(kube.Finish(lostOnes{r}))
}

// lostBy is a snapshot that has our finalizers and is gone at once; nil if it was
// being deleted before, as it should be: then it was let go by us, or by hand, and
// its last state, which is that before its last write, has them too.
func (w *Words) lostBy(s *Snapshot) *lost {
	if s.Object.GetDeletionTimestamp() != nil || !w.held(s) {
		return nil
	}
	return &lost{key: client.ObjectKeyFromObject(s.Object), uid: s.Object.GetUID(), content: s.ContentName}
}

// Reconcile implements reconcile.TypedReconciler. A content that is not there yet
// is let go by whoever is making it. One that is older than youth stays, as does
// any whose snapshot only is not there any more: somebody has taken the snapshot
// out of the API server's store, or has put back an older state of that, and what
// is at the driver must not be deleted for that.
func (r lostOnes) Reconcile(ctx context.Context, l lost) (reconcile.Result, error) {
	o := r.kind.New()
	o.SetNamespace(l.key.Namespace)
	o.SetName(l.key.Name)
	o.SetUID(l.uid)
	s := &Seen{Snapshot: &Snapshot{Object: o, ContentName: l.content}}
	if err := r.readContent(ctx, r.live, s); err != nil || s.Content == nil || r.now().Sub(s.Content.Object.GetCreationTimestamp().Time) > youth {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, r.abandon(ctx, s)
}

// reconsider lets a content go again whose snapshot was lost while it was made or
// bound. The cache knows enough: what it does not show yet comes to lostOnes.
func (r *Reconciler) reconsider(ctx context.Context, s *Seen) error {
	now := r.kind.New()
	there, err := read(ctx, r.client, client.ObjectKeyFromObject(s.Snapshot.Object), now)
	if err != nil || there && now.GetUID() == s.Snapshot.Object.GetUID() {
		return err
	}
	return r.abandon(ctx, s)
}

// abandon lets a content go if it is the snapshot's, whatever the driver's half is
// writing meanwhile.
func (r *Reconciler) abandon(ctx context.Context, s *Seen) error {
	return retry.OnError(retry.DefaultBackoff, kube.IsSuperseded, func() error {
		if err := r.readContent(ctx, r.live, s); err != nil || !s.bound() {
			return err
		}
		return r.giveUp(ctx, s)
	})
}
