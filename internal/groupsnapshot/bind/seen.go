package bind

import (
	"slices"
	"strings"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/utils/ptr"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// static tells whether the group names a content that was there before.
func (s *seen) static() bool { return s.group.Spec.Source.VolumeGroupSnapshotContentName != nil }

// contentName is the group's content, there or not.
func (s *seen) contentName() string { return contentName(s.group) }

func contentName(of *groupv1.VolumeGroupSnapshot) string {
	if name := of.Spec.Source.VolumeGroupSnapshotContentName; name != nil {
		return *name
	}
	if of.Status != nil {
		if name := ptr.Deref(of.Status.BoundVolumeGroupSnapshotContentName, ""); name != "" {
			return name
		}
	}
	return snapshot.GroupContentName(of.UID)
}

// refers tells whether the content's reference is to the group.
func (s *seen) refers() bool {
	return snapshot.Refers(s.content.Spec.VolumeGroupSnapshotRef, s.group.Namespace, s.group.Name, s.group.UID)
}

// bound tells whether the content is there, and is the group's and nobody else's.
func (s *seen) bound() bool {
	return s.content != nil && s.content.Spec.VolumeGroupSnapshotRef.UID == s.group.UID && s.refers()
}

// held tells whether we keep the group.
func (s *seen) held() bool { return slices.Contains(s.group.Finalizers, snapshot.GroupBoundFinalizer) }

// permitted tells whether the driver's half has our word that the content may go.
func (s *seen) permitted() bool { return snapshot.Group.Permitted(s.content) }

// untouched tells whether the driver's half has not begun with the content.
func (s *seen) untouched() bool {
	return s.content.Status == nil && !snapshot.Group.Begun(s.content)
}

func (s *seen) retained() bool {
	return s.content.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentRetain
}

// driver is that of the volumes, once all of them are known to be of one.
func (s *seen) driver() string { return s.sources[0].Volume.Spec.CSI.Driver }

func list(names []string) string { return strings.Join(names, ", ") }
