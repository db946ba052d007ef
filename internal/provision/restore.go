package provision

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// SnapshotSource is a VolumeSnapshot with the content that it names; each nil if it does
// not exist.
type SnapshotSource struct {
	Snapshot *snapshotv1.VolumeSnapshot
	Content  *snapshotv1.VolumeSnapshotContent
}

// check tells whether the snapshot can be restored to the claim and returns the
// driver's handle of it.
func (f *SnapshotSource) check(s state, o *Options) (handle string, err error) {
	if err := f.checkBound(s.claim); err != nil {
		return "", err
	}
	if err := f.checkReady(o); err != nil {
		return "", err
	}
	if size := f.Snapshot.Status.RestoreSize; size != nil && s.claim.Spec.Resources.Requests.Storage().Cmp(*size) < 0 {
		return "", fmt.Errorf("the claim asks for %s and the snapshot takes %s: ask for at least as much",
			s.claim.Spec.Resources.Requests.Storage(), size)
	}
	return *f.Content.Status.SnapshotHandle, f.checkMode(s.claim, o)
}

// checkBound tells whether snapshot and content are each other's, and there to stay.
func (f *SnapshotSource) checkBound(claim *corev1.PersistentVolumeClaim) error {
	switch {
	case f.Snapshot == nil:
		return errors.New("does not exist")
	case !f.isRestorable(claim):
		return errors.New("is being deleted")
	case f.Snapshot.Status == nil || ptr.Deref(f.Snapshot.Status.BoundVolumeSnapshotContentName, "") == "":
		return errors.New("is not bound to a VolumeSnapshotContent yet")
	case f.Content == nil:
		return fmt.Errorf("its VolumeSnapshotContent %s does not exist", *f.Snapshot.Status.BoundVolumeSnapshotContentName)
	}
	ref := f.Content.Spec.VolumeSnapshotRef
	if ref.UID != f.Snapshot.UID || ref.Namespace != f.Snapshot.Namespace || ref.Name != f.Snapshot.Name {
		return fmt.Errorf("its VolumeSnapshotContent %s is bound to another snapshot, %s/%s", f.Content.Name, ref.Namespace, ref.Name)
	}
	return nil
}

// isRestorable tells whether the snapshot is there until the claim has its volume.
func (f *SnapshotSource) isRestorable(claim *corev1.PersistentVolumeClaim) bool {
	return f.Snapshot.DeletionTimestamp == nil || slices.Contains(f.Snapshot.Finalizers, kube.SnapshotSourceFinalizer) || f.isHeldFor(claim)
}

// isHeldFor tells whether a snapshot that is being deleted stays until the claim has
// its volume: snapshot-controller waits for the claims of the snapshot's namespace
// that were made before the deletion.
func (f *SnapshotSource) isHeldFor(claim *corev1.PersistentVolumeClaim) bool {
	return f.Snapshot.DeletionTimestamp != nil && f.Snapshot.Namespace == claim.Namespace && !claim.CreationTimestamp.After(f.Snapshot.DeletionTimestamp.Time)
}

// checkReady tells whether the snapshot is our driver's and done.
func (f *SnapshotSource) checkReady(o *Options) error {
	switch {
	case f.Content.Spec.Driver != o.Driver:
		return fmt.Errorf("is a snapshot of driver %s, and the StorageClass is of driver %s", f.Content.Spec.Driver, o.Driver)
	case !ptr.Deref(f.Snapshot.Status.ReadyToUse, false):
		return errors.New("is not ready to use yet")
	case f.Content.Status == nil || ptr.Deref(f.Content.Status.SnapshotHandle, "") == "":
		return fmt.Errorf("its VolumeSnapshotContent %s has no handle of the driver yet", f.Content.Name)
	}
	return nil
}

// checkMode guards against reading a filesystem's raw blocks, or mounting what a
// tenant wrote as blocks, unless the administrator has allowed it (KEP-3141).
func (f *SnapshotSource) checkMode(claim *corev1.PersistentVolumeClaim, o *Options) error {
	was := f.Content.Spec.SourceVolumeMode
	if was == nil || *was == volumeMode(claim.Spec.VolumeMode) || !o.PreventModeConversion {
		return nil
	}
	if allowed, err := strconv.ParseBool(f.Content.Annotations[kube.AnnAllowModeChange]); err == nil && allowed {
		return nil
	}
	return fmt.Errorf("is of a volume with mode %s and the claim has mode %s: an administrator must allow it by the annotation %s=true on VolumeSnapshotContent %s",
		*was, volumeMode(claim.Spec.VolumeMode), kube.AnnAllowModeChange, f.Content.Name)
}
