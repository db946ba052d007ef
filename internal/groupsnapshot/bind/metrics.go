package bind

import (
	"context"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// advanced measures what a status that was just written has ended.
func (r *Reconciler) advanced(s *seen, now *groupv1.VolumeGroupSnapshotStatus) {
	after := *s
	after.group = s.group.DeepCopy()
	after.group.Status = now
	r.waits.Advanced(s.progress(), after.progress())
}

// ended measures what has ended with a group that was let go.
func (r *Reconciler) ended(ctx context.Context, s *seen) {
	if s.class == nil && s.content == nil {
		_ = kube.Read(ctx, r.client, client.ObjectKey{Name: ptr.Deref(s.group.Spec.VolumeGroupSnapshotClassName, "")}, &s.class) // Then the driver is unknown.
	}
	r.waits.Ended(s.progress())
}

// unfinished is how many operations on groups have not ended.
func (r *Reconciler) unfinished(ctx context.Context) int {
	all := &groupv1.VolumeGroupSnapshotList{}
	if r.client.List(ctx, all, client.UnsafeDisableDeepCopy) != nil {
		return 0 // The cache is not filled yet.
	}
	n := 0
	for i := range all.Items {
		if p := progress(&all.Items[i]); r.options.Serves(all.Items[i].Namespace) {
			n += len(p.Unfinished())
		}
	}
	return n
}

func (s *seen) progress() snapshot.Progress {
	p := progress(s.group)
	switch {
	case s.content != nil:
		p.Driver = s.content.Spec.Driver
	case s.class != nil:
		p.Driver = s.class.Driver
	}
	return p
}

func progress(g *groupv1.VolumeGroupSnapshot) snapshot.Progress {
	p := snapshot.Progress{Object: g, Operations: snapshot.GroupOperations, Given: g.Spec.Source.VolumeGroupSnapshotContentName != nil}
	if g.Status != nil {
		p.Ready = ptr.Deref(g.Status.ReadyToUse, false)
		p.Cut = p.Ready || g.Status.CreationTime != nil
	}
	return p
}
