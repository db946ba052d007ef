package bind

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// adopt gives a content that was there before the UID of its snapshot, and what
// keeps it, in one write: whose it is can only be said once.
func (r *Reconciler) adopt(ctx context.Context, s *seen) error {
	if err := r.protect(ctx, s, string(s.content.Spec.DeletionPolicy), ""); err != nil {
		return err
	}
	spec := map[string]any{"volumeSnapshotRef": map[string]any{"uid": s.snapshot.UID}}
	if class := ptr.Deref(s.snapshot.Spec.VolumeSnapshotClassName, ""); class != "" {
		spec["volumeSnapshotClassName"] = class
	}
	err := kube.Written(kube.Merge(ctx, r.client, s.content, map[string]any{
		"metadata": map[string]any{"resourceVersion": s.content.ResourceVersion, "finalizers": snapshot.Single.Kept(s.content)},
		"spec":     spec,
	}), "binding VolumeSnapshotContent "+s.content.Name)
	if err != nil && !kube.IsSuperseded(err) {
		r.events.Warning(s.snapshot, reasonBindFailed, err.Error())
	}
	if err != nil {
		return err
	}
	return r.reconsider(ctx, s)
}

// follow takes over what the content says. A content that was made by another
// program, or by hand, may lack what keeps it.
func (r *Reconciler) follow(ctx context.Context, s *seen) (time.Duration, error) {
	if err := r.protect(ctx, s, string(s.content.Spec.DeletionPolicy), ""); err != nil {
		return 0, err
	}
	if err := snapshot.Single.Keep(ctx, r.client, s.content); err != nil {
		return 0, err
	}
	age := r.now().Sub(s.content.CreationTimestamp.Time)
	if s.content.Status == nil && s.snapshot.Status == nil && age < patience {
		return patience - age, nil
	}
	if err := r.report(ctx, s); err != nil || !s.untouched() {
		return 0, err
	}
	told, left := service.NotServed(s.snapshot, s.content, s.content.Spec.Driver, r.now())
	if told != nil {
		r.events.Warning(s.snapshot, told.Reason, told.Text)
	}
	return left, nil
}

// report writes what the content says to the snapshot, if that is news, and
// tells it.
func (r *Reconciler) report(ctx context.Context, s *seen) error {
	before, now := s.snapshot.Status, s.status()
	if equality.Semantic.DeepEqual(before, now) {
		return nil
	}
	if err := r.setStatus(ctx, s.snapshot, now); err != nil {
		return err
	}
	r.advanced(s, now)
	r.tell(s, before, now)
	return nil
}

// status is what the snapshot's status says if it follows the content. What was
// said once about time and group stays.
func (s *seen) status() *snapshotv1.VolumeSnapshotStatus {
	now := &snapshotv1.VolumeSnapshotStatus{}
	if s.snapshot.Status != nil {
		now = s.snapshot.Status.DeepCopy()
	}
	now.BoundVolumeSnapshotContentName, now.ReadyToUse, now.Error = &s.content.Name, ptr.To(false), nil
	from := s.content.Status
	if from == nil {
		return now
	}
	if owner := snapshot.GroupOf(s.snapshot); owner != nil && from.VolumeGroupSnapshotHandle != nil {
		now.VolumeGroupSnapshotName = &owner.Name
	}
	now.ReadyToUse = ptr.To(ptr.Deref(from.ReadyToUse, false))
	if !*now.ReadyToUse {
		now.Error = from.Error
	}
	if at := ptr.Deref(from.CreationTime, 0); now.CreationTime == nil && at > 0 {
		now.CreationTime = ptr.To(metav1.NewTime(time.Unix(0, at).Truncate(time.Second)))
	}
	if size := ptr.Deref(from.RestoreSize, 0); size > 0 {
		now.RestoreSize = resource.NewQuantity(size, resource.BinarySI)
	}
	return now
}

// tell is one event for what has become of the snapshot.
func (r *Reconciler) tell(s *seen, before, now *snapshotv1.VolumeSnapshotStatus) {
	if before == nil {
		before = &snapshotv1.VolumeSnapshotStatus{}
	}
	name := s.snapshot.Namespace + "/" + s.snapshot.Name
	switch {
	case *now.ReadyToUse && !ptr.Deref(before.ReadyToUse, false):
		r.events.Normal(s.snapshot, reasonReady, fmt.Sprintf("Snapshot %s is ready to use.", name))
	case now.Error != nil && ptr.Deref(now.Error.Message, "") != messageOf(before.Error):
		r.events.Warning(s.snapshot, reasonContentCreation, ptr.Deref(now.Error.Message, ""))
	case now.CreationTime != nil && before.CreationTime == nil:
		r.events.Normal(s.snapshot, reasonCreated, fmt.Sprintf("Snapshot %s was successfully created by the CSI driver.", name))
	case now.CreationTime == nil && before.BoundVolumeSnapshotContentName == nil:
		r.events.Normal(s.snapshot, reasonCreating, fmt.Sprintf("Waiting for a snapshot %s to be created by the CSI driver.", name))
	}
}

func messageOf(e *snapshotv1.VolumeSnapshotError) string {
	if e == nil {
		return ""
	}
	return ptr.Deref(e.Message, "")
}

// setStatus writes a snapshot's status as a whole, also that there is no error: the
// cache may not show the one that was written a moment ago.
func (r *Reconciler) setStatus(ctx context.Context, of *snapshotv1.VolumeSnapshot, now *snapshotv1.VolumeSnapshotStatus) error {
	status, err := whole(now)
	if err != nil {
		return fmt.Errorf("encoding the status of snapshot %s: %w", of.Name, err)
	}
	return kube.Written(kube.MergeStatus(ctx, r.client, of.DeepCopy(), status), "writing the status of the snapshot")
}

func whole(status *snapshotv1.VolumeSnapshotStatus) (map[string]any, error) {
	text, err := json.Marshal(status)
	if err != nil {
		return nil, err
	}
	all := map[string]any{"error": nil}
	return all, json.Unmarshal(text, &all)
}
