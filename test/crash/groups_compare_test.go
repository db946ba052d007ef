package crash

import (
	"context"
	"fmt"
	"slices"
	"strings"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// readGroups reads the groups and their contents.
func (s *clusterState) readGroups(ctx context.Context) (err error) {
	groups := &groupv1.VolumeGroupSnapshotList{}
	if err = s.api.List(ctx, groups, client.InNamespace(s.Namespace)); err != nil {
		return err
	}
	s.groups = groups.Items
	s.groupContents, err = s.ListGroupContents(ctx, s.api)
	return err
}

// compareGroups reports groups and their contents that are not as wanted.
func (s *clusterState) compareGroups(want map[string]types.UID, retained map[string]bool, members map[string]bool, found *result) {
	wrong := func(format string, args ...any) { found.stuck = append(found.stuck, fmt.Sprintf(format, args...)) }
	left := map[string]bool{}
	for i := range s.groups {
		g := &s.groups[i]
		left[g.Name] = true
		if want[g.Name] != g.UID {
			wrong("group snapshot %s exists with the finalizers %v, and nobody wants it: %s", g.Name, g.Finalizers, toJSON(g.Status))
		} else if why := s.groupProblem(g, members); why != "" {
			wrong("group snapshot %s %s: %s", g.Name, why, toJSON(g.Status))
		}
	}
	for name := range want {
		if !left[name] {
			wrong("group snapshot %s is gone although it is wanted", name)
		}
	}
	for i := range s.groupContents {
		c := &s.groupContents[i]
		_, stays := retained[c.Name]
		_, wanted := want[c.Spec.VolumeGroupSnapshotRef.Name]
		switch why := s.groupContentProblem(c, len(members)); {
		case !wanted && !stays:
			wrong("content %s exists with the finalizers %v, and nobody wants it: %s", c.Name, c.Finalizers, toJSON(c.Status))
		case stays && !s.scenario.retain && c.Spec.VolumeGroupSnapshotRef.UID != "":
			wrong("content %s exists without its group", c.Name)
		case stays && !s.scenario.retain: // It was not bound.
		case why != "":
			wrong("content %s %s: %s", c.Name, why, toJSON(c.Status))
		}
	}
	for name, must := range retained {
		if must && s.groupContent(name) == nil {
			wrong("content %s is gone, but must be retained", name)
		}
	}
}

// groupProblem returns what is wrong with a wanted group.
func (s *clusterState) groupProblem(g *groupv1.VolumeGroupSnapshot, members map[string]bool) string {
	switch status := g.Status; {
	case status == nil || !ptr.Deref(status.ReadyToUse, false):
		return "is not ready"
	case status.Error != nil:
		return "is ready and has an error"
	case status.CreationTime == nil || status.CreationTime.Year() < 2000:
		return "has no creation time"
	case s.groupContent(ptr.Deref(status.BoundVolumeGroupSnapshotContentName, "")) == nil:
		return "has no content"
	}
	for i := range s.snapshots {
		if v := &s.snapshots[i]; members[v.Name] && !isMemberOf(v, g) {
			return "has a member that does not refer to it: " + v.Name
		}
	}
	return ""
}

func isMemberOf(v *snapshotv1.VolumeSnapshot, g *groupv1.VolumeGroupSnapshot) bool {
	owner := snapshot.GroupOf(v)
	return owner != nil && owner.UID == g.UID && slices.Contains(v.Finalizers, snapshot.InGroupFinalizer) &&
		v.Status != nil && ptr.Deref(v.Status.VolumeGroupSnapshotName, "") == g.Name
}

// groupContentProblem returns what is wrong with a wanted content of a group.
func (s *clusterState) groupContentProblem(c *groupv1.VolumeGroupSnapshotContent, members int) string {
	_, marked := c.Annotations[snapshot.Group.BeingCreated]
	switch status := c.Status; {
	case marked:
		return "has the being-created annotation"
	case !slices.Contains(c.Finalizers, snapshot.Group.Finalizer):
		return "is not protected"
	case status == nil || !ptr.Deref(status.ReadyToUse, false):
		return "is not ready"
	case !s.wasReady(*status.VolumeGroupSnapshotHandle):
		return "is ready although the driver has not reported that"
	case status.Error != nil:
		return "is ready and has an error"
	case len(status.VolumeSnapshotInfoList) != members:
		return "does not have all members"
	case !s.hasAllMembers(status):
		return "is not at the driver, or has other members there"
	default:
		return ""
	}
}

// hasAllMembers reports whether the driver has the group with the same members.
func (s *clusterState) hasAllMembers(status *groupv1.VolumeGroupSnapshotContentStatus) bool {
	var handles []string
	for _, info := range status.VolumeSnapshotInfoList {
		handles = append(handles, info.SnapshotHandle)
	}
	slices.Sort(handles)
	return slices.ContainsFunc(s.driverGroups, func(at csitest.Group) bool {
		return at.ID == *status.VolumeGroupSnapshotHandle && slices.Equal(slices.Sorted(slices.Values(at.MemberIDs)), handles)
	})
}

func (s *clusterState) groupContent(name string) *groupv1.VolumeGroupSnapshotContent {
	for i := range s.groupContents {
		if s.groupContents[i].Name == name {
			return &s.groupContents[i]
		}
	}
	return nil
}

// findOrphanGroups finds groups at the driver to which nothing in the cluster refers,
// as findOrphans does for single snapshots. A content of a member is not enough: only
// the group's content deletes the group.
func (s *clusterState) findOrphanGroups(spared string, found *result) {
	for _, at := range s.driverGroups {
		referenced := slices.ContainsFunc(s.groupContents, func(c groupv1.VolumeGroupSnapshotContent) bool {
			_, marked := c.Annotations[snapshot.Group.BeingCreated]
			given := c.Spec.Source.GroupSnapshotHandles
			return given != nil && given.VolumeGroupSnapshotHandle == at.ID ||
				c.Status != nil && ptr.Deref(c.Status.VolumeGroupSnapshotHandle, "") == at.ID ||
				(marked || c.DeletionTimestamp == nil) && strings.HasSuffix(at.Name, string(c.Spec.VolumeGroupSnapshotRef.UID))
		})
		if !referenced && at.ID != spared {
			found.leaks = append(found.leaks, fmt.Sprintf("group snapshot %s, named %s, with %v", at.ID, at.Name, at.MemberIDs))
		}
	}
}
