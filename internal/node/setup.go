package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/orphan"
	"github.com/holdfast-io/holdfast/internal/store"
)

// Resources are those without which the agent cannot work.
var Resources = kube.Resources{GroupVersion: v1alpha1.GroupVersion, Names: []string{"checkpoints", "checkpointnodes"}}

// CacheOptions limits the cache to the Checkpoints and pods of the node.
func CacheOptions(o *Options, into *cache.Options) {
	into.ByObject = map[client.Object]cache.ByObject{
		&v1alpha1.Checkpoint{}: {Field: fields.OneTermEqualSelector("status.nodeName", o.Node)},
		&corev1.Pod{}: {
			Field: fields.OneTermEqualSelector("spec.nodeName", o.Node), Transform: kube.StripMetadata,
		},
	}
}

// Setup adds the agent to a manager. It recovers what a process that died has left before
// the first Checkpoint is reconciled.
func Setup(ctx context.Context, m ctrl.Manager, events *kube.Events, stores Stores, o *Options) error {
	stores.Secrets, stores.Node, stores.LocalPath = m.GetAPIReader(), o.Node, o.LocalPath
	r := &Reconciler{
		client: m.GetClient(), apiReader: m.GetAPIReader(), events: events, options: o, stores: stores, now: time.Now,
		probes: &prober{client: m.GetClient(), apiReader: m.GetAPIReader(), options: o},
	}
	if err := r.recover(ctx); err != nil {
		return err
	}
	r.probes.probe(ctx)
	for _, runnable := range []manager.Runnable{r.probes, manager.RunnableFunc(r.discardUnowned)} {
		if err := m.Add(runnable); err != nil {
			return err
		}
	}
	if err := errors.Join(addFinder(m, &r.stores, o), addRestore(m, events, r)); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(m).
		Named("node").
		For(&v1alpha1.Checkpoint{}).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: o.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](o.RetryStart, o.RetryMax),
		}).
		Complete(kube.DrainOnStop(r))
}

// addFinder adds what looks for orphaned data.
func addFinder(m ctrl.Manager, stores *Stores, o *Options) error {
	if err := orphan.RegisterMetrics(); err != nil || o.OrphanInterval == 0 {
		return err
	}
	return m.Add(&orphan.Finder{
		Client: m.GetClient(), APIReader: m.GetAPIReader(), Node: o.Node, PolicyNamespace: o.Namespace, Interval: o.OrphanInterval,
		Local: v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendLocal},
		Open: func(ctx context.Context, c *v1alpha1.Checkpoint) (store.Store, func(string) string, error) {
			p, err := stores.Open(ctx, c)
			if err != nil {
				return nil, nil, err
			}
			return p, p.Location, nil
		},
	})
}

// recover thaws what is frozen and takes over complete dumps. An engine that does not work
// has frozen nothing, unless it worked before: its error ends the agent, which tries again
// when it is restarted.
func (r *Reconciler) recover(ctx context.Context) error {
	for _, e := range r.options.Engines {
		dumps, err := e.Recover(ctx)
		if err != nil {
			return fmt.Errorf("recovering what a former process of engine %s has left: %w", e.Name(), err)
		}
		for id, all := range dumps {
			r.staged.add(types.UID(id), all)
		}
	}
	return nil
}

// discardUnowned removes the dumps of Checkpoints that are gone, or that were assigned to
// another node. The cache must be filled.
func (r *Reconciler) discardUnowned(ctx context.Context) error {
	var all v1alpha1.CheckpointList
	if err := r.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing Checkpoints: %w", err)
	}
	owned := map[types.UID]bool{}
	for i := range all.Items {
		owned[all.Items[i].UID] = true
	}
	for _, uid := range r.staged.uids() {
		if owned[uid] {
			continue
		}
		if err := r.staged.discard(uid); err != nil {
			return fmt.Errorf("removing the dumps of Checkpoint %s, which is gone: %w", uid, err)
		}
	}
	return nil
}
