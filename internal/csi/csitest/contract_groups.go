package csitest

import (
	"context"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-io/holdfast/internal/csi"
)

func (c *contract) groups(t *testing.T) {
	if group := csipb.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT; !c.info.HasGroup(group) {
		t.Skipf("the driver does not announce %s", group)
	}
	c.needs(t, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
	var sources []string
	for _, suffix := range []string{"a", "b"} {
		sources = append(sources, c.createVolume(t, c.volumeRequest(t, suffix, contractSize)).GetVolumeId())
	}
	t.Run("creating", func(t *testing.T) { c.creatingGroups(t, sources) })
	t.Run("reading", func(t *testing.T) { c.readingGroups(t, sources) })
	t.Run("deleting", func(t *testing.T) { c.deletingGroups(t, sources) })
	t.Run("members", func(t *testing.T) { c.members(t, sources) })
}

// createGroup creates a group and deletes it at the end of the test. The csi
// package checks that the members are one snapshot of each source.
func (c *contract) createGroup(t *testing.T, suffix string, sources []string) (*csipb.CreateVolumeGroupSnapshotRequest, *csipb.VolumeGroupSnapshot) {
	t.Helper()
	req := &csipb.CreateVolumeGroupSnapshotRequest{Name: uniqueName(t, suffix), SourceVolumeIds: sources}
	group, err := c.driver.CreateVolumeGroupSnapshot(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.driver.WithPrecondition(csi.Unconditional).DeleteVolumeGroupSnapshot(context.WithoutCancel(t.Context()), deleteGroupRequest(group)); err != nil {
			t.Error(err)
		}
	})
	return req, group
}

// deleteGroupRequest is a request to delete the group, with all its members.
func deleteGroupRequest(group *csipb.VolumeGroupSnapshot) *csipb.DeleteVolumeGroupSnapshotRequest {
	return &csipb.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: group.GetGroupSnapshotId(), SnapshotIds: memberIDs(group)}
}

func memberIDs(group *csipb.VolumeGroupSnapshot) []string {
	var ids []string
	for _, member := range group.GetSnapshots() {
		ids = append(ids, member.GetSnapshotId())
	}
	return ids
}

// wantSameGroup compares two groups without ready_to_use, which may change.
func wantSameGroup(t *testing.T, first, second *csipb.VolumeGroupSnapshot) {
	t.Helper()
	first.ReadyToUse = second.GetReadyToUse()
	if len(first.GetSnapshots()) == len(second.GetSnapshots()) {
		for i, member := range second.GetSnapshots() {
			first.Snapshots[i].ReadyToUse = member.GetReadyToUse()
		}
	}
	wantSame(t, first, second)
}

func (c *contract) creatingGroups(t *testing.T, sources []string) {
	t.Run("the same request gets the same response", func(t *testing.T) {
		req, first := c.createGroup(t, "same", sources)
		second, err := c.driver.CreateVolumeGroupSnapshot(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		wantSameGroup(t, first, second)
	})
	t.Run("an existing name with other volumes is rejected", func(t *testing.T) {
		req, _ := c.createGroup(t, "taken", sources)
		req.SourceVolumeIds = sources[:1]
		_, err := c.driver.CreateVolumeGroupSnapshot(t.Context(), req)
		wantError(t, err, codes.AlreadyExists, csi.OutcomeUnknown)
	})
	t.Run("no group is created if a volume does not exist", func(t *testing.T) {
		_, err := c.driver.CreateVolumeGroupSnapshot(t.Context(), &csipb.CreateVolumeGroupSnapshotRequest{
			Name: uniqueName(t, "orphan"), SourceVolumeIds: []string{sources[0], "no-such-volume"},
		})
		wantError(t, err, codes.NotFound, csi.Failed)
		if !c.info.Has(csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS) {
			return
		}
		for entry, err := range c.driver.ListSnapshots(t.Context(), &csipb.ListSnapshotsRequest{SourceVolumeId: sources[0]}) {
			t.Errorf("there is a snapshot: %v, %v", entry, err)
		}
	})
	t.Run("a request without volumes is rejected", func(t *testing.T) {
		_, err := c.driver.CreateVolumeGroupSnapshot(t.Context(), &csipb.CreateVolumeGroupSnapshotRequest{Name: uniqueName(t, "empty")})
		wantError(t, err, codes.InvalidArgument, csi.Failed)
	})
}

func (c *contract) readingGroups(t *testing.T, sources []string) {
	_, group := c.createGroup(t, "read", sources)
	ask := func(id string, members []string) (*csipb.VolumeGroupSnapshot, error) {
		return c.driver.GetVolumeGroupSnapshot(t.Context(), &csipb.GetVolumeGroupSnapshotRequest{GroupSnapshotId: id, SnapshotIds: members})
	}
	t.Run("it is the same as in the response to its creation", func(t *testing.T) {
		got, err := ask(group.GetGroupSnapshotId(), memberIDs(group))
		if err != nil {
			t.Fatal(err)
		}
		wantSameGroup(t, group, got)
	})
	t.Run("a request with other members is rejected", func(t *testing.T) {
		_, err := ask(group.GetGroupSnapshotId(), memberIDs(group)[:1])
		wantError(t, err, codes.InvalidArgument, csi.Failed)
	})
	t.Run("a missing group is not found", func(t *testing.T) {
		_, err := ask("no-such-group", []string{"no-such-snapshot"})
		wantError(t, err, codes.NotFound, csi.Failed)
	})
}

func (c *contract) deletingGroups(t *testing.T, sources []string) {
	t.Run("a group that is gone is deleted", func(t *testing.T) {
		_, group := c.createGroup(t, "gone", sources) // its cleanup deletes it again
		if err := c.driver.WithPrecondition(csi.Unconditional).DeleteVolumeGroupSnapshot(t.Context(), deleteGroupRequest(group)); err != nil {
			t.Fatal(err)
		}
		for _, id := range memberIDs(group) {
			c.wantNoSnapshot(t, id)
		}
	})
	t.Run("a request with other members deletes nothing", func(t *testing.T) {
		_, group := c.createGroup(t, "kept", sources)
		req := deleteGroupRequest(group)
		req.SnapshotIds = req.GetSnapshotIds()[:1]
		wantError(t, c.driver.WithPrecondition(csi.Unconditional).DeleteVolumeGroupSnapshot(t.Context(), req), codes.InvalidArgument, csi.Failed)
		_, err := c.driver.GetVolumeGroupSnapshot(t.Context(), &csipb.GetVolumeGroupSnapshotRequest{
			GroupSnapshotId: group.GetGroupSnapshotId(), SnapshotIds: memberIDs(group),
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// wantNoSnapshot checks that a snapshot is gone, if the driver can read snapshots.
func (c *contract) wantNoSnapshot(t *testing.T, id string) {
	t.Helper()
	if !c.canGetSnapshot() {
		return
	}
	_, err := c.driver.GetSnapshot(t.Context(), &csipb.GetSnapshotRequest{SnapshotId: id})
	wantError(t, err, codes.NotFound, csi.Failed)
}

func (c *contract) canGetSnapshot() bool {
	return c.info.Has(csipb.ControllerServiceCapability_RPC_GET_SNAPSHOT) || c.info.Has(csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS)
}

func (c *contract) members(t *testing.T, sources []string) {
	_, group := c.createGroup(t, "members", sources)
	t.Run("each member is a snapshot with the id of its group", func(t *testing.T) {
		if !c.canGetSnapshot() {
			t.Skip("the driver cannot read a snapshot")
		}
		for _, id := range memberIDs(group) {
			got, err := c.driver.GetSnapshot(t.Context(), &csipb.GetSnapshotRequest{SnapshotId: id})
			if err != nil || got.GetGroupSnapshotId() != group.GetGroupSnapshotId() {
				t.Errorf("got %v, %v", got, err)
			}
		}
	})
	t.Run("no member is deleted alone", func(t *testing.T) {
		c.needs(t, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT)
		err := c.driver.WithPrecondition(csi.Unconditional).DeleteSnapshot(t.Context(), &csipb.DeleteSnapshotRequest{SnapshotId: memberIDs(group)[0]})
		wantError(t, err, codes.InvalidArgument, csi.Failed)
	})
	t.Run("each member can be restored", func(t *testing.T) {
		if !group.GetReadyToUse() {
			t.Skip("the snapshots are not ready yet, and the contract has no time for that")
		}
		for _, id := range memberIDs(group) {
			req := c.volumeRequest(t, "restored", contractSize)
			req.VolumeContentSource = fromSnapshot(id)
			c.createVolume(t, req)
		}
	})
}
