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

// found is a VolumeSnapshot with the content that it names; each nil if it does
// not exist.
type found struct {
	snapshot *snapshotv1.VolumeSnapshot
	content  *snapshotv1.VolumeSnapshotContent
}

// check tells whether the snapshot can be restored to the claim and returns the
// driver's handle of it.
func (f *found) check(s seen, o *Options) (handle string, err error) {
	if err := f.bound(s.claim); err != nil {
		return "", err
	}
	if err := f.usable(o); err != nil {
		return "", err
	}
	if size := f.snapshot.Status.RestoreSize; size != nil && s.claim.Spec.Resources.Requests.Storage().Cmp(*size) < 0 {
		return "", fmt.Errorf("the claim asks for %s and the snapshot takes %s: ask for at least as much",
			s.claim.Spec.Resources.Requests.Storage(), size)
	}
	return *f.content.Status.SnapshotHandle, f.modeFits(s.claim, o)
}

// bound tells whether snapshot and content are each other's, and there to stay.
func (f *found) bound(claim *corev1.PersistentVolumeClaim) error {
	switch {
	case f.snapshot == nil:
		return errors.New("does not exist")
	case !f.stays(claim):
		return errors.New("is being deleted")
	case f.snapshot.Status == nil || ptr.Deref(f.snapshot.Status.BoundVolumeSnapshotContentName, "") == "":
		return errors.New("is not bound to a VolumeSnapshotContent yet")
	case f.content == nil:
		return fmt.Errorf("its VolumeSnapshotContent %s does not exist", *f.snapshot.Status.BoundVolumeSnapshotContentName)
	}
	ref := f.content.Spec.VolumeSnapshotRef
	if ref.UID != f.snapshot.UID || ref.Namespace != f.snapshot.Namespace || ref.Name != f.snapshot.Name {
		return fmt.Errorf("its VolumeSnapshotContent %s is bound to another snapshot, %s/%s", f.content.Name, ref.Namespace, ref.Name)
	}
	return nil
}

// stays tells whether the snapshot is there until the claim has its volume.
func (f *found) stays(claim *corev1.PersistentVolumeClaim) bool {
	return f.snapshot.DeletionTimestamp == nil || slices.Contains(f.snapshot.Finalizers, kube.SnapshotSourceFinalizer) || f.waitsFor(claim)
}

// waitsFor tells whether a snapshot that is being deleted stays until the claim has
// its volume: snapshot-controller waits for the claims of the snapshot's namespace
// that were made before the deletion.
func (f *found) waitsFor(claim *corev1.PersistentVolumeClaim) bool {
	return f.snapshot.DeletionTimestamp != nil && f.snapshot.Namespace == claim.Namespace && !claim.CreationTimestamp.After(f.snapshot.DeletionTimestamp.Time)
}

// usable tells whether the snapshot is our driver's and done.
func (f *found) usable(o *Options) error {
	switch {
	case f.content.Spec.Driver != o.Driver:
		return fmt.Errorf("is a snapshot of driver %s, and the StorageClass is of driver %s", f.content.Spec.Driver, o.Driver)
	case !ptr.Deref(f.snapshot.Status.ReadyToUse, false):
		return errors.New("is not ready to use yet")
	case f.content.Status == nil || ptr.Deref(f.content.Status.SnapshotHandle, "") == "":
		return fmt.Errorf("its VolumeSnapshotContent %s has no handle of the driver yet", f.content.Name)
	}
	return nil
}

// modeFits guards against reading a filesystem's raw blocks, or mounting what a
// tenant wrote as blocks, unless the administrator has allowed it (KEP-3141).
func (f *found) modeFits(claim *corev1.PersistentVolumeClaim, o *Options) error {
	was := f.content.Spec.SourceVolumeMode
	if was == nil || *was == modeOf(claim.Spec.VolumeMode) || !o.PreventModeConversion {
		return nil
	}
	if allowed, err := strconv.ParseBool(f.content.Annotations[kube.AnnAllowModeChange]); err == nil && allowed {
		return nil
	}
	return fmt.Errorf("is of a volume with mode %s and the claim has mode %s: an administrator must allow it by the annotation %s=true on VolumeSnapshotContent %s",
		*was, modeOf(claim.Spec.VolumeMode), kube.AnnAllowModeChange, f.content.Name)
}
