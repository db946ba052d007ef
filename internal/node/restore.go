package node

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/restore"
	"github.com/holdfast-io/holdfast/internal/runtime/oci"
	"github.com/holdfast-io/holdfast/internal/store"
)

// addRestore adds what restores pods.
func addRestore(m manager.Manager, events *kube.Events, r *Reconciler) error {
	o := r.options
	var memory restore.Memory
	for _, engine := range o.Engines {
		if holder, ok := engine.(restore.Memory); ok {
			memory = holder
		}
	}
	return restore.Setup(m, events, archives{&r.stores}, oci.Node{Root: o.HostRoot}, &restore.Options{
		Node: o.Node, OperatorNamespace: o.Namespace, Dir: o.RestoreDir, KubeletDir: o.KubeletDir, HostPID: o.HostPID, Memory: memory,
		Environment: r.probes.environment, Handlers: o.handlers,
		Workers: o.Workers, RetryStart: o.RetryStart, RetryMax: o.RetryMax,
	})
}

// archives implements [restore.Archives].
type archives struct{ stores *Stores }

// Open implements [restore.Archives].
func (a archives) Open(ctx context.Context, c *v1alpha1.Checkpoint, container string) (store.Object, error) {
	place, err := a.stores.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	var from store.Store = place
	return from.Open(ctx, keyOf(c, container))
}

// Key implements [restore.Archives].
func (a archives) Key(ctx context.Context, c *v1alpha1.Checkpoint) (*archive.Key, error) {
	return a.stores.Key(ctx, c)
}

// environment returns what the node has, as the first engine that works has found it; nil if
// none does.
func (p *prober) environment() *v1alpha1.Environment {
	for _, result := range p.get() {
		if result.capability != nil {
			return environmentOf(result.capability)
		}
	}
	return nil
}
