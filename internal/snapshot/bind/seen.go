package bind

import (
	"slices"
	"strings"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// finalizers are ours on a VolumeSnapshot.
var finalizers = []string{snapshot.AsSourceFinalizer, snapshot.BoundFinalizer, snapshot.InGroupFinalizer}

// static tells whether the snapshot names a content that was there before.
func (s *seen) static() bool { return s.snapshot.Spec.Source.VolumeSnapshotContentName != nil }

// contentName is the snapshot's content, there or not.
func (s *seen) contentName() string { return contentName(s.snapshot) }

func contentName(of *snapshotv1.VolumeSnapshot) string {
	if name := of.Spec.Source.VolumeSnapshotContentName; name != nil {
		return *name
	}
	if of.Status != nil {
		if name := ptr.Deref(of.Status.BoundVolumeSnapshotContentName, ""); name != "" {
			return name
		}
	}
	if isMember(of) {
		return snapshot.MemberContentName(of.Name)
	}
	return snapshot.ContentName(of.UID)
}

// refers tells whether the content's reference is to the snapshot.
func (s *seen) refers() bool {
	return snapshot.Refers(s.content.Spec.VolumeSnapshotRef, s.snapshot.Namespace, s.snapshot.Name, s.snapshot.UID)
}

// bound tells whether the content is there, and is the snapshot's and nobody
// else's.
func (s *seen) bound() bool {
	return s.content != nil && s.content.Spec.VolumeSnapshotRef.UID == s.snapshot.UID && s.refers()
}

// held tells whether we keep the snapshot.
func (s *seen) held() bool {
	return slices.ContainsFunc(s.snapshot.Finalizers, func(f string) bool { return slices.Contains(finalizers, f) })
}

// restored tells whether a provisioner restores the snapshot.
func (s *seen) restored() bool { return isRestored(s.snapshot) }

func isRestored(o client.Object) bool {
	return slices.Contains(o.GetFinalizers(), kube.SnapshotSourceFinalizer)
}

// permitted tells whether the driver's half has our word that the content may go.
func (s *seen) permitted() bool { return snapshot.Single.Permitted(s.content) }

// untouched tells whether the driver's half has not begun with the content.
func (s *seen) untouched() bool {
	return s.content.Status == nil && !snapshot.Single.Begun(s.content)
}

// placed tells whether the volume is in some places only. One that can be used
// everywhere is cut by a driver that works for all nodes.
func (s *seen) placed() bool {
	return s.volume.Spec.NodeAffinity != nil && s.volume.Spec.NodeAffinity.Required != nil
}

func (s *seen) retained() bool {
	return s.content.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentRetain
}

// member tells whether the snapshot is part of a group snapshot.
func (s *seen) member() bool { return isMember(s.snapshot) }

func isMember(of *snapshotv1.VolumeSnapshot) bool { return snapshot.GroupOf(of) != nil }

// memberContent tells whether the content is part of a group snapshot.
func (s *seen) memberContent() bool {
	_, ok := s.content.Annotations[snapshot.MemberOf]
	return ok
}

// cutBefore tells whether the snapshot once had a content that said so.
func (s *seen) cutBefore() bool {
	return s.snapshot.Status != nil && s.snapshot.Status.CreationTime != nil
}

// isCut tells whether the claim's contents are in a snapshot that needs the
// claim no more. After the cut only the upload may still be going on.
func isCut(of *snapshotv1.VolumeSnapshot) bool {
	return of.Status != nil && (of.Status.CreationTime != nil || ptr.Deref(of.Status.ReadyToUse, false))
}

func list(names []string) string { return strings.Join(names, ", ") }
