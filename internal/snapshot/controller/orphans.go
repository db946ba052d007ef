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

// maxContentAge bounds the age of the content of a snapshot that bypassed its finalizers.
// That happens while the content is created.
const maxContentAge = time.Minute

// An orphan is a content whose snapshot is gone, so that no reconciliation of the
// snapshot will delete it. There are two causes.
//
// The snapshot bypassed its finalizers: if a finalizer is added while the API server is
// already deleting an object without finalizers, it is ignored. Such a content must be
// deleted now. Later it cannot be told apart from a content that was copied from another
// cluster, whose snapshot must not be deleted.
//
// The content was created after the finalizers of its snapshot were removed: by a leader
// that was suspended for longer than its Lease, or by an API server that executes a
// request after its caller has given up. Its creationTimestamp is later than the
// deletion.
type orphan struct {
	key     client.ObjectKey
	uid     types.UID
	content string
	deleted time.Time // zero if the snapshot bypassed its finalizers
}

// orphanReconciler deletes orphans.
type orphanReconciler struct {
	*Reconciler
	// deleted has the snapshots, by UID, that were deleted and whose content may still be
	// created. It may be lost by a restart: whoever creates a content late checks its
	// snapshot too, see deleteContentIfOrphaned.
	deleted *utilcache.LRUExpireCache
}

const (
	// maxRememberedDeletions and rememberDeletionFor bound what is remembered.
	maxRememberedDeletions = 4096
	rememberDeletionFor    = 10 * time.Minute
)

func newOrphanReconciler(r *Reconciler) orphanReconciler {
	return orphanReconciler{r, utilcache.NewLRUExpireCache(maxRememberedDeletions)}
}

// orphanQueue is the queue of the controller.
type orphanQueue = workqueue.TypedRateLimitingInterface[orphan]

// SetUpOrphans adds the controller that deletes orphans.
func (r *Reconciler) SetUpOrphans(m ctrl.Manager) error {
	o := newOrphanReconciler(r)
	return builder.TypedControllerManagedBy[orphan](m).
		Named("orphan-"+r.Name).
		Watches(r.kind.EmptySnapshot(), handler.TypedFuncs[client.Object, orphan]{
			DeleteFunc: func(ctx context.Context, e event.TypedDeleteEvent[client.Object], queue orphanQueue) {
				if !e.DeleteStateUnknown {
					o.snapshotDeleted(ctx, r.kind.ReadSnapshot(e.Object), queue)
				}
			},
		}).
		Watches(r.kind.EmptyContent(), handler.TypedFuncs[client.Object, orphan]{
			CreateFunc: func(_ context.Context, e event.TypedCreateEvent[client.Object], queue orphanQueue) {
				o.contentCreated(r.kind.ReadContent(e.Object), queue)
			},
		}).
		WithOptions(controller.TypedOptions[orphan]{
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[orphan](r.options.RetryStart, r.options.RetryMax),
		}).
		Complete(kube.DrainOnStop(o))
}

// snapshotDeleted handles the deletion of a snapshot.
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
	if r.readContent(ctx, r.client, state) == nil && state.Content != nil { // Reading the cache does not fail.
		r.contentCreated(state.Content, queue)
	}
}

// contentCreated handles the creation of a content.
func (r orphanReconciler) contentCreated(content *Content, queue orphanQueue) {
	remembered, ok := r.deleted.Get(content.Ref.UID)
	if !ok {
		return
	}
	if o, ok := remembered.(orphan); ok && o.content == content.Object.GetName() && o.matches(content, r.now()) {
		queue.Add(o)
	}
}

// orphanOf is the content that a deleted snapshot may have left; nil if it cannot be an
// orphan, because the snapshot never had our finalizers, or names a pre-provisioned
// content. The last state of a snapshot that was deleted normally is that before its last
// write, so it still has our finalizers.
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

// matches reports whether a content of this snapshot is the orphan.
func (s *orphan) matches(content *Content, now time.Time) bool {
	made := content.Object.GetCreationTimestamp()
	if s.deleted.IsZero() {
		return now.Sub(made.Time) <= maxContentAge
	}
	return made.After(s.deleted)
}

// observed is as much of the state of the snapshot as is known.
func (s *orphan) observed(k SnapshotKind) *Observed {
	object := k.EmptySnapshot()
	object.SetNamespace(s.key.Namespace)
	object.SetName(s.key.Name)
	object.SetUID(s.uid)
	return &Observed{Snapshot: &Snapshot{Object: object, ContentName: s.content}}
}

// Reconcile implements reconcile.TypedReconciler. A content that does not exist yet is
// deleted when it appears, or by whoever creates it. A content for which orphan states no
// cause stays: somebody may have removed the snapshot from etcd, or restored an older
// state of etcd, and the snapshot at the driver must survive that.
func (r orphanReconciler) Reconcile(ctx context.Context, o orphan) (reconcile.Result, error) {
	s := o.observed(r.kind)
	if err := r.readContent(ctx, r.apiReader, s); err != nil || s.Content == nil || !o.matches(s.Content, r.now()) {
		return reconcile.Result{}, err
	}
	content, err := s.Content.Object, r.deleteOrphan(ctx, s)
	r.events.WarnIfDenied(content, r.Reasons.ContentDeletion, err) // Its snapshot is gone.
	return reconcile.Result{}, err
}

// slowCreation is how long the creation of a content may take before its snapshot is read
// from the API server: this process may have been suspended meanwhile, and not be the
// leader any more.
const slowCreation = 5 * time.Second

// deleteContentIfOrphaned deletes a content whose snapshot was deleted while the content
// was created or bound. The cache is good enough unless that took long: a deletion that
// it does not show yet reaches orphanReconciler.
func (r *Reconciler) deleteContentIfOrphaned(ctx context.Context, s *Observed) error {
	var from client.Reader = r.client
	if r.now().Round(0).Sub(s.ObservedAt.Round(0)) > slowCreation { // The monotonic clock stops while the machine is suspended.
		from = r.apiReader
	}
	current := r.kind.EmptySnapshot()
	there, err := read(ctx, from, client.ObjectKeyFromObject(s.Snapshot.Object), current)
	if err != nil || there && current.GetUID() == s.Snapshot.Object.GetUID() {
		return err
	}
	return r.deleteOrphan(ctx, s)
}

// deleteOrphan deletes a content if it is the snapshot's. It retries when the
// csi-snapshotter writes the content meanwhile.
func (r *Reconciler) deleteOrphan(ctx context.Context, s *Observed) error {
	return retry.OnError(retry.DefaultBackoff, kube.IsConflict, func() error {
		if err := r.readContent(ctx, r.apiReader, s); err != nil || !s.isBound() {
			return err
		}
		return r.allowAndDeleteContent(ctx, s)
	})
}
