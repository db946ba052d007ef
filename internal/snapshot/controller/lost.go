package controller

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	utilcache "k8s.io/apimachinery/pkg/util/cache"
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

// A lost snapshot cannot give up its content any more. There are two kinds.
//
// One went past its finalizers: an API server that is deleting an object without any
// ignores one that is added at that moment. Its content must be let go now. Later
// nobody can tell it from one that was copied from another cluster, whose snapshot
// must not be deleted.
//
// The other one was let go when it had no content, and that was made after all: by a
// leader that was stopped for longer than its Lease, or by an API server that carries
// out a request which its caller has given up. Its content is newer than its deletion.
type lost struct {
	key     client.ObjectKey
	uid     types.UID
	content string
	deleted time.Time // zero for one of the first kind
}

// lostOnes lets the contents of lost snapshots go.
type lostOnes struct {
	*Reconciler
	// deleted are the lost by UID that may get a content yet. Who makes a content
	// late looks for its snapshot too, so a restart may forget them.
	deleted *utilcache.LRUExpireCache
}

const (
	// deletedKept bounds how many deletions are remembered, and deletedFor how long.
	deletedKept = 4096
	deletedFor  = 10 * time.Minute
)

func newLostOnes(r *Reconciler) lostOnes {
	return lostOnes{r, utilcache.NewLRUExpireCache(deletedKept)}
}

// lostQueue is what lost snapshots wait in.
type lostQueue = workqueue.TypedRateLimitingInterface[lost]

// FindLost adds the controller that does so.
func (r *Reconciler) FindLost(m ctrl.Manager) error {
	l := newLostOnes(r)
	return builder.TypedControllerManagedBy[lost](m).
		Named("lost-"+r.Name).
		Watches(r.kind.New(), handler.TypedFuncs[client.Object, lost]{
			DeleteFunc: func(ctx context.Context, e event.TypedDeleteEvent[client.Object], queue lostQueue) {
				if !e.DeleteStateUnknown {
					l.gone(ctx, r.kind.Read(e.Object), queue)
				}
			},
		}).
		Watches(r.kind.NewContent(), handler.TypedFuncs[client.Object, lost]{
			CreateFunc: func(_ context.Context, e event.TypedCreateEvent[client.Object], queue lostQueue) {
				l.made(r.kind.ReadContent(e.Object), queue)
			},
		}).
		WithOptions(controller.TypedOptions[lost]{
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[lost](r.options.RetryStart, r.options.RetryMax),
		}).
		Complete(kube.DrainOnStop(l))
}

// gone is told of each snapshot that is gone.
func (r lostOnes) gone(ctx context.Context, s *Snapshot, queue lostQueue) {
	one := r.lostBy(s)
	if one == nil {
		return
	}
	if one.deleted.IsZero() {
		queue.Add(*one)
		return
	}
	r.deleted.Add(one.uid, *one, deletedFor)
	it := one.seen(r.kind)
	if r.readContent(ctx, r.client, it) == nil && it.Content != nil { // The cache always answers.
		r.made(it.Content, queue)
	}
}

// made is told of each content that is made.
func (r lostOnes) made(content *Content, queue lostQueue) {
	known, ok := r.deleted.Get(content.Ref.UID)
	if !ok {
		return
	}
	if one, ok := known.(lost); ok && one.content == content.Object.GetName() && one.isLostWith(content, r.now()) {
		queue.Add(one)
	}
}

// lostBy is a snapshot that is gone and may be lost; nil if it is not: it was never
// ours, or its content was there before it. One that was being deleted was let go by
// us, or by hand; its last state, which is that before its last write, has our
// finalizers.
func (w *KindInfo) lostBy(s *Snapshot) *lost {
	if !w.held(s) {
		return nil
	}
	one := &lost{key: client.ObjectKeyFromObject(s.Object), uid: s.Object.GetUID(), content: s.ContentName}
	if at := s.Object.GetDeletionTimestamp(); at != nil {
		one.deleted = at.Time
	}
	if !one.deleted.IsZero() && s.PreProvisioned != "" {
		return nil
	}
	return one
}

// isLostWith tells whether a content, of this snapshot, must go with it.
func (l *lost) isLostWith(content *Content, now time.Time) bool {
	made := content.Object.GetCreationTimestamp()
	if l.deleted.IsZero() {
		return now.Sub(made.Time) <= youth
	}
	return made.After(l.deleted)
}

// seen is as much of the snapshot as is known.
func (l *lost) seen(k Kind) *Observed {
	o := k.New()
	o.SetNamespace(l.key.Namespace)
	o.SetName(l.key.Name)
	o.SetUID(l.uid)
	return &Observed{Snapshot: &Snapshot{Object: o, ContentName: l.content}}
}

// Reconcile implements reconcile.TypedReconciler. A content that is not there yet
// is let go by whoever is making it, or when it appears. Any other one stays whose
// snapshot only is not there any more: somebody has taken the snapshot out of the API
// server's store, or has put back an older state of that, and what is at the driver
// must not be deleted for that.
func (r lostOnes) Reconcile(ctx context.Context, l lost) (reconcile.Result, error) {
	s := l.seen(r.kind)
	if err := r.readContent(ctx, r.live, s); err != nil || s.Content == nil || !l.isLostWith(s.Content, r.now()) {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, r.abandon(ctx, s)
}

// slow is how long making a content may take before it is asked of the API server
// whether its snapshot is still there: this process may have been stopped meanwhile,
// and lead no longer.
const slow = 5 * time.Second

// reconsider lets a content go again whose snapshot was lost while it was made or
// bound. The cache knows enough unless that took long: what it does not show yet
// comes to lostOnes.
func (r *Reconciler) reconsider(ctx context.Context, s *Observed) error {
	var from client.Reader = r.client
	if r.now().Round(0).Sub(s.At.Round(0)) > slow { // A clock that only counts while this machine runs is no use here.
		from = r.live
	}
	now := r.kind.New()
	there, err := read(ctx, from, client.ObjectKeyFromObject(s.Snapshot.Object), now)
	if err != nil || there && now.GetUID() == s.Snapshot.Object.GetUID() {
		return err
	}
	return r.abandon(ctx, s)
}

// abandon lets a content go if it is the snapshot's, whatever the driver's half is
// writing meanwhile.
func (r *Reconciler) abandon(ctx context.Context, s *Observed) error {
	return retry.OnError(retry.DefaultBackoff, kube.IsConflict, func() error {
		if err := r.readContent(ctx, r.live, s); err != nil || !s.bound() {
			return err
		}
		return r.giveUp(ctx, s)
	})
}
