package bind

import (
	"context"
	"fmt"
	"slices"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// release gives the driver's half our word that the content may go, with what
// keeps it until the driver's half has done its part, and deletes it if that is
// its policy.
func (r *Reconciler) release(ctx context.Context, s *seen) error {
	if err := snapshot.Group.Permit(ctx, r.client, s.content); err != nil {
		return err
	}
	if s.retained() {
		return r.letGo(ctx, s)
	}
	if s.content.DeletionTimestamp != nil {
		return nil
	}
	err := r.client.Delete(ctx, s.content, client.Preconditions{UID: &s.content.UID})
	if client.IgnoreNotFound(err) != nil {
		r.events.Warning(s.group, reasonContentDelete, fmt.Sprintf("VolumeGroupSnapshotContent %s could not be deleted: %v", s.content.Name, err))
		return fmt.Errorf("deleting VolumeGroupSnapshotContent %s: %w", s.content.Name, err)
	}
	return nil
}

// letGo takes our finalizer off the group. That the cache shows no content of its
// own is not enough: it may have been made, or bound, a moment ago.
func (r *Reconciler) letGo(ctx context.Context, s *seen) error {
	if !s.bound() {
		s.content = nil
		if err := kube.Read(ctx, r.live, client.ObjectKey{Name: s.contentName()}, &s.content); err != nil {
			return err
		}
		if s.bound() {
			return r.release(ctx, s)
		}
	}
	left := slices.DeleteFunc(slices.Clone(s.group.Finalizers), func(f string) bool { return f == snapshot.GroupBoundFinalizer })
	err := kube.Merge(ctx, r.client, s.group, map[string]any{"metadata": map[string]any{
		"resourceVersion": s.group.ResourceVersion, "finalizers": left,
	}})
	if err == nil {
		r.ended(ctx, s)
	}
	return kube.Written(client.IgnoreNotFound(err), "letting the group snapshot go")
}

// scatter deletes the members of a group that is gone, and wakes those that have
// been deleted before, for nothing holds them any more. The members go after
// their group, because while it is there they cannot. If this process dies in
// between, the garbage collector of Kubernetes deletes them. That the cache shows
// no group is not enough: it may lag behind that of the members.
func (r *Reconciler) scatter(ctx context.Context, s *seen) error {
	of := snapshot.GroupOf(&s.members[0])
	var there *groupv1.VolumeGroupSnapshot
	if err := kube.Read(ctx, r.live, client.ObjectKey{Namespace: s.members[0].Namespace, Name: of.Name}, &there); err != nil {
		return err
	}
	for i := range s.members {
		one := &s.members[i]
		if there != nil && snapshot.GroupOf(one).UID == there.UID {
			continue
		}
		if err := r.dismiss(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reconciler) dismiss(ctx context.Context, one *snapshotv1.VolumeSnapshot) error {
	if one.DeletionTimestamp != nil {
		select {
		case r.singles.Gone <- event.GenericEvent{Object: one}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := r.client.Delete(ctx, one, client.Preconditions{UID: &one.UID})
	if client.IgnoreNotFound(err) != nil {
		r.events.Warning(one, reasonDelete, fmt.Sprintf("The group of this snapshot is gone, and it could not be deleted: %v", err))
		return fmt.Errorf("deleting VolumeSnapshot %s, a member of the group: %w", one.Name, err)
	}
	return nil
}
