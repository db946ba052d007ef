package bind

import (
	"context"
	"fmt"
	"time"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// follow makes the members of a group that is cut, then takes over what the
// content says: a group that is ready has all of its members, and they are ready too. A content that was
// made by another program, or by hand, may lack what keeps it.
func (r *Reconciler) follow(ctx context.Context, s *seen) (time.Duration, error) {
	if err := r.protect(ctx, s, ""); err != nil {
		return 0, err
	}
	if err := snapshot.Group.Keep(ctx, r.client, s.content); err != nil {
		return 0, err
	}
	if s.content.Status == nil && s.group.Status == nil {
		if left := patience - r.now().Sub(s.content.CreationTimestamp.Time); left > 0 {
			return left, nil
		}
	}
	if err := r.gather(ctx, s); err != nil {
		return 0, err
	}
	if err := r.report(ctx, s); err != nil || !s.untouched() {
		return 0, err
	}
	told, left := service.NotServed(s.group, s.content, s.content.Spec.Driver, r.now())
	if told != nil {
		r.events.Warning(s.group, told.Reason, told.Text)
	}
	return left, nil
}

// report writes what the content says to the group, if that is news, and tells
// it.
func (r *Reconciler) report(ctx context.Context, s *seen) error {
	before, now := s.group.Status, s.status()
	if equality.Semantic.DeepEqual(before, now) {
		return nil
	}
	if err := r.setStatus(ctx, s.group, now); err != nil {
		return err
	}
	r.advanced(s, now)
	r.tell(s, before, now)
	return nil
}

// status is what the group's status says if it follows the content. What was
// said once about its time stays.
func (s *seen) status() *groupv1.VolumeGroupSnapshotStatus {
	now := &groupv1.VolumeGroupSnapshotStatus{}
	if s.group.Status != nil {
		now = s.group.Status.DeepCopy()
	}
	now.BoundVolumeGroupSnapshotContentName, now.ReadyToUse, now.Error = &s.content.Name, ptr.To(false), nil
	from := s.content.Status
	if from == nil {
		return now
	}
	stays := s.group.Status != nil && ptr.Deref(s.group.Status.ReadyToUse, false)
	now.ReadyToUse = ptr.To(ptr.Deref(from.ReadyToUse, false) && (stays || len(s.unready) == 0))
	if !*now.ReadyToUse {
		now.Error = from.Error
	}
	if now.CreationTime == nil {
		now.CreationTime = from.CreationTime
	}
	return now
}

// tell is one event for what has become of the group.
func (r *Reconciler) tell(s *seen, before, now *groupv1.VolumeGroupSnapshotStatus) {
	if before == nil {
		before = &groupv1.VolumeGroupSnapshotStatus{}
	}
	name := s.group.Namespace + "/" + s.group.Name
	switch {
	case *now.ReadyToUse && !ptr.Deref(before.ReadyToUse, false):
		r.events.Normal(s.group, reasonReady, fmt.Sprintf("Group snapshot %s is ready to use.", name))
	case now.Error != nil && !equality.Semantic.DeepEqual(now.Error, before.Error):
		r.events.Warning(s.group, reasonContentCreation, ptr.Deref(now.Error.Message, ""))
	case now.CreationTime != nil && before.CreationTime == nil:
		r.events.Normal(s.group, reasonCreated, fmt.Sprintf("Group snapshot %s was successfully created by the CSI driver.", name))
	case now.CreationTime == nil && before.BoundVolumeGroupSnapshotContentName == nil:
		r.events.Normal(s.group, reasonCreating, fmt.Sprintf("Waiting for a group snapshot %s to be created by the CSI driver.", name))
	}
}

// setStatus writes what differs from a group's status as it was seen.
func (r *Reconciler) setStatus(ctx context.Context, of *groupv1.VolumeGroupSnapshot, now *groupv1.VolumeGroupSnapshotStatus) error {
	changed := of.DeepCopy()
	changed.Status = now
	return kube.Written(kube.ChangeStatus(ctx, r.client, of, changed), "writing the status of the group snapshot")
}
