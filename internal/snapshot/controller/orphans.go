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

// maxContentAge is how old a content can be whose snapshot is lost: that happens while the
// content is made.
const maxContentAge = time.Minute

// A orphan snapshot cannot give up its content any more. There are two kinds.
//
// One went past its finalizers: an API server that is deleting an object without any
// ignores one that is added at that moment. Its content must be let go now. Later
// nobody can tell it from one that was copied from another cluster, whose snapshot
// must not be deleted.
//
// The other one was let go when it had no content, and that was made after all: by a
// leader that was stopped for longer than its Lease, or by an API server that carries
// out a request which its caller has given up. Its content is newer than its deletion.
type orphan struct {
	key     client.ObjectKey
	uid     types.UID
	content string
	deleted time.Time // zero for one of the first kind
}

// orphanReconciler lets the contents of lost snapshots go.
type orphanReconciler struct {
	*Reconciler
	// deleted are the lost by UID that may get a content yet. Who makes a content
	// late looks for its snapshot too, so a restart may forget them.
	deleted *utilcache.LRUExpireCache
}

const (
	// maxRememberedDeletions bounds how many deletions are remembered, and deletedFor how long.
	maxRememberedDeletions = 4096
	rememberDeletionFor    = 10 * time.Minute
)

func newOrphanReconciler(r *Reconciler) orphanReconciler {
	return orphanReconciler{r, utilcache.NewLRUExpireCache(maxRememberedDeletions)}
}

// orphanQueue is what lost snapshots wait in.
type orphanQueue = workqueue.TypedRateLimitingInterface[orphan]

// SetUpOrphans adds the controller that does so.
func (r *Reconciler) SetUpOrphans(m ctrl.Manager) error {
	l := newOrphanReconciler(r)
	return builder.TypedControllerManagedBy[orphan](m).
		Named("lost-"+r.Name).
		Watches(r.kind.EmptySnapshot(), handler.TypedFuncs[client.Object, orphan]{
			DeleteFunc: func(ctx context.Context, e event.TypedDeleteEvent[client.Object], queue orphanQueue) {
				if !e.DeleteStateUnknown {
					l.snapshotDeleted(ctx, r.kind.ReadSnapshot(e.Object), queue)
				}
			},
		}).
		Watches(r.kind.EmptyContent(), handler.TypedFuncs[client.Object, orphan]{
			CreateFunc: func(_ context.Context, e event.TypedCreateEvent[client.Object], queue orphanQueue) {
				l.contentCreated(r.kind.ReadContent(e.Object), queue)
			},
		}).
		WithOptions(controller.TypedOptions[orphan]{
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[orphan](r.options.RetryStart, r.options.RetryMax),
		}).
		Complete(kube.DrainOnStop(l))
}

// snapshotDeleted is told of each snapshot that is gone.
func (r orphanReconciler) snapshotDeleted(ctx context.Context, s *Snapshot, queue orphanQueue) {
	o := r.orphanOf(s)
	if o == nil {
		return
	}
	if o.deleted.IsZero() {
		queue.Add(*o)
		return
	}
	r.deleted.Add(o.uid, *o, rememberDeletionFor)
	state := o.observed(r.kind)
	if r.readContent(ctx, r.client, state) == nil && state.Content != nil { // The cache always answers.
		r.contentCreated(state.Content, queue)
	}
}

// contentCreated is told of each content that is made.
func (r orphanReconciler) contentCreated(content *Content, queue orphanQueue) {
	remembered, ok := r.deleted.Get(content.Ref.UID)
	if !ok {
		return
	}
	if o, ok := remembered.(orphan); ok && o.content == content.Object.GetName() && o.isOrphanedBy(content, r.now()) {
		queue.Add(o)
	}
}

// orphanOf is a snapshot that is gone and may be lost; nil if it is not: it was never
// ours, or its content was there before it. One that was being deleted was let go by
// us, or by hand; its last state, which is that before its last write, has our
// finalizers.
func (k *KindInfo) orphanOf(s *Snapshot) *orphan {
	if !k.hasFinalizer(s) {
		return nil
	}
	o := &orphan{key: client.ObjectKeyFromObject(s.Object), uid: s.Object.GetUID(), content: s.ContentName}
	if at := s.Object.GetDeletionTimestamp(); at != nil {
		o.deleted = at.Time
	}
	if !o.deleted.IsZero() && s.PreProvisionedContent != "" {
		return nil
	}
	return o
}

// isOrphanedBy tells whether a content, of this snapshot, must go with it.
func (s *orphan) isOrphanedBy(content *Content, now time.Time) bool {
	made := content.Object.GetCreationTimestamp()
	if s.deleted.IsZero() {
		return now.Sub(made.Time) <= maxContentAge
	}
	return made.After(s.deleted)
}

// observed is as much of the snapshot as is known.
func (s *orphan) observed(k SnapshotKind) *Observed {
	object := k.EmptySnapshot()
	object.SetNamespace(s.key.Namespace)
	object.SetName(s.key.Name)
	object.SetUID(s.uid)
	return &Observed{Snapshot: &Snapshot{Object: object, ContentName: s.content}}
}

// Reconcile implements reconcile.TypedReconciler. A content that is not there yet
// is let go by whoever is making it, or when it appears. Any other one stays whose
// snapshot only is not there any more: somebody has taken the snapshot out of the API
// server's store, or has put back an older state of that, and what is at the driver
// must not be deleted for that.
func (r orphanReconciler) Reconcile(ctx context.Context, o orphan) (reconcile.Result, error) {
	s := o.observed(r.kind)
	if err := r.readContent(ctx, r.apiReader, s); err != nil || s.Content == nil || !o.isOrphanedBy(s.Content, r.now()) {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, r.deleteOrphan(ctx, s)
}

// slowCreation is how long making a content may take before it is asked of the API server
// whether its snapshot is still there: this process may have been stopped meanwhile,
// and lead no longer.
const slowCreation = 5 * time.Second

// deleteContentIfOrphaned lets a content go again whose snapshot was lost while it was made or
// bound. The cache knows enough unless that took long: what it does not show yet
// comes to lostOnes.
func (r *Reconciler) deleteContentIfOrphaned(ctx context.Context, s *Observed) error {
	var from client.Reader = r.client
	if r.now().Round(0).Sub(s.ObservedAt.Round(0)) > slowCreation { // A clock that only counts while this machine runs is no use here.
		from = r.apiReader
	}
	current := r.kind.EmptySnapshot()
	there, err := read(ctx, from, client.ObjectKeyFromObject(s.Snapshot.Object), current)
	if err != nil || there && current.GetUID() == s.Snapshot.Object.GetUID() {
		return err
	}
	return r.deleteOrphan(ctx, s)
}

// deleteOrphan lets a content go if it is the snapshot's, whatever the driver's half is
// writing meanwhile.
func (r *Reconciler) deleteOrphan(ctx context.Context, s *Observed) error {
	return retry.OnError(retry.DefaultBackoff, kube.IsConflict, func() error {
		if err := r.readContent(ctx, r.apiReader, s); err != nil || !s.isBound() {
			return err
		}
		return r.allowAndDeleteContent(ctx, s)
	})
}
