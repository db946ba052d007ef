package source

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

// Snapshot is a VolumeSnapshot with its content; each is nil if it does not exist.
type Snapshot struct {
	Snapshot *snapshotv1.VolumeSnapshot
	Content  *snapshotv1.VolumeSnapshotContent
}

// contentName returns the name of the content that the snapshot is bound to, "" for
// none.
func (s *Snapshot) contentName() string {
	if s.Snapshot.Status == nil {
		return ""
	}
	return ptr.Deref(s.Snapshot.Status.BoundVolumeSnapshotContentName, "")
}

// check returns the driver's handle of the snapshot, or an error if the claim cannot
// be restored from it.
func (s *Snapshot) check(claim *corev1.PersistentVolumeClaim, rules Rules) (handle string, err error) {
	if err := s.checkBound(claim); err != nil {
		return "", err
	}
	if err := s.checkReady(rules); err != nil {
		return "", err
	}
	if size := s.Snapshot.Status.RestoreSize; size != nil && claim.Spec.Resources.Requests.Storage().Cmp(*size) < 0 {
		return "", fmt.Errorf("the claim asks for %s and the snapshot takes %s: ask for at least as much",
			claim.Spec.Resources.Requests.Storage(), size)
	}
	return *s.Content.Status.SnapshotHandle, s.checkMode(claim, rules)
}

// checkBound checks that snapshot and content are bound to each other and stay.
func (s *Snapshot) checkBound(claim *corev1.PersistentVolumeClaim) error {
	switch {
	case s.Snapshot == nil:
		return errors.New("does not exist")
	case !s.staysFor(claim):
		return errors.New("is being deleted")
	case s.contentName() == "":
		return errors.New("is not bound to a VolumeSnapshotContent yet")
	case s.Content == nil:
		return fmt.Errorf("its VolumeSnapshotContent %s does not exist", s.contentName())
	}
	ref := s.Content.Spec.VolumeSnapshotRef
	if ref.UID != s.Snapshot.UID || ref.Namespace != s.Snapshot.Namespace || ref.Name != s.Snapshot.Name {
		return fmt.Errorf("its VolumeSnapshotContent %s is bound to another snapshot, %s/%s", s.Content.Name, ref.Namespace, ref.Name)
	}
	return nil
}

// staysFor reports whether the snapshot exists until the claim has its volume.
func (s *Snapshot) staysFor(claim *corev1.PersistentVolumeClaim) bool {
	return s.Snapshot.DeletionTimestamp == nil || slices.Contains(s.Snapshot.Finalizers, kube.SnapshotSourceFinalizer) || s.isHeldFor(claim)
}

// isHeldFor reports whether a snapshot that is being deleted stays until the claim
// has its volume: snapshot-controller waits for the claims of the snapshot's
// namespace that were created before the deletion.
func (s *Snapshot) isHeldFor(claim *corev1.PersistentVolumeClaim) bool {
	return s.Snapshot.DeletionTimestamp != nil && s.Snapshot.Namespace == claim.Namespace &&
		!claim.CreationTimestamp.After(s.Snapshot.DeletionTimestamp.Time)
}

// checkReady checks that the snapshot is our driver's and ready to use.
func (s *Snapshot) checkReady(rules Rules) error {
	switch {
	case s.Content.Spec.Driver != rules.Driver:
		return fmt.Errorf("is a snapshot of driver %s, and the StorageClass is of driver %s", s.Content.Spec.Driver, rules.Driver)
	case !ptr.Deref(s.Snapshot.Status.ReadyToUse, false):
		return errors.New("is not ready to use yet")
	case s.Content.Status == nil || ptr.Deref(s.Content.Status.SnapshotHandle, "") == "":
		return fmt.Errorf("its VolumeSnapshotContent %s has no handle of the driver yet", s.Content.Name)
	}
	return nil
}

// checkMode rejects a change of the volume mode unless the administrator has allowed
// it (KEP-3141): a tenant could read a filesystem's raw blocks, or have the node mount
// a filesystem that the tenant wrote as blocks.
func (s *Snapshot) checkMode(claim *corev1.PersistentVolumeClaim, rules Rules) error {
	was := s.Content.Spec.SourceVolumeMode
	if was == nil || *was == volumeMode(claim.Spec.VolumeMode) || !rules.PreventModeConversion {
		return nil
	}
	if allowed, err := strconv.ParseBool(s.Content.Annotations[kube.AnnAllowModeChange]); err == nil && allowed {
		return nil
	}
	return fmt.Errorf("is of a volume with mode %s and the claim has mode %s: an administrator must allow it by the annotation %s=true on VolumeSnapshotContent %s",
		*was, volumeMode(claim.Spec.VolumeMode), kube.AnnAllowModeChange, s.Content.Name)
}
