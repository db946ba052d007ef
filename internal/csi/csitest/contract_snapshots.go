package csitest

import (
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-io/holdfast/internal/csi"
)

func fromVolume(id string) *csipb.VolumeContentSource {
	return &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Volume{Volume: &csipb.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

func fromSnapshot(id string) *csipb.VolumeContentSource {
	return &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Snapshot{Snapshot: &csipb.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}

func (c *contract) cloning(t *testing.T) {
	c.needs(t, csipb.ControllerServiceCapability_RPC_CLONE_VOLUME, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
	c.copying(t, fromVolume(c.createVolume(t, c.volumeRequest(t, "original", contractSize)).GetVolumeId()))
	t.Run("a source that does not exist is rejected", func(t *testing.T) {
		req := c.volumeRequest(t, "orphan", contractSize)
		req.VolumeContentSource = fromVolume("no-such-volume")
		_, err := c.driver.CreateVolume(t.Context(), req)
		wantError(t, err, codes.NotFound, csi.Failed)
	})
}

func (c *contract) restoring(t *testing.T) {
	c.needs(t, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
	original := c.createVolume(t, c.volumeRequest(t, "original", contractSize)).GetVolumeId()
	snapshot := c.createSnapshot(t, &csipb.CreateSnapshotRequest{Name: uniqueName(t, "source"), SourceVolumeId: original})
	if !snapshot.GetReadyToUse() {
		t.Skip("the snapshot is not ready yet, and the contract has no time for that")
	}
	c.copying(t, fromSnapshot(snapshot.GetSnapshotId()))
	t.Run("a source that does not exist is rejected", func(t *testing.T) {
		req := c.volumeRequest(t, "orphan", contractSize)
		req.VolumeContentSource = fromSnapshot("no-such-snapshot")
		_, err := c.driver.CreateVolume(t.Context(), req)
		wantError(t, err, codes.NotFound, csi.Failed)
	})
}

// copying tests what clones and restored snapshots have in common. The csi package
// checks that the response has a content source.
func (c *contract) copying(t *testing.T, source *csipb.VolumeContentSource) {
	t.Run("the same request gets the same response", func(t *testing.T) {
		req := c.volumeRequest(t, "copy", contractSize)
		req.VolumeContentSource = source
		first := c.createVolume(t, req)
		second, err := c.driver.CreateVolume(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, first, second)
	})
	t.Run("a copy may be larger", func(t *testing.T) {
		req := c.volumeRequest(t, "larger", 2*contractSize)
		req.VolumeContentSource = source
		c.createVolume(t, req)
	})
	t.Run("an existing name of an empty volume is rejected", func(t *testing.T) {
		req := c.volumeRequest(t, "empty", contractSize)
		c.createVolume(t, req)
		req.VolumeContentSource = source
		_, err := c.driver.CreateVolume(t.Context(), req)
		wantError(t, err, codes.AlreadyExists, csi.OutcomeUnknown)
	})
}

func (c *contract) snapshots(t *testing.T) {
	c.needs(t, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
	source := c.createVolume(t, c.volumeRequest(t, "source", contractSize)).GetVolumeId()
	t.Run("the same request gets the same response", func(t *testing.T) {
		req := &csipb.CreateSnapshotRequest{Name: uniqueName(t, "same"), SourceVolumeId: source}
		first := c.createSnapshot(t, req)
		second, err := c.driver.CreateSnapshot(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		first.ReadyToUse = second.GetReadyToUse() // only this may change
		wantSame(t, first, second)
	})
	t.Run("an existing name with another source is rejected", func(t *testing.T) {
		req := &csipb.CreateSnapshotRequest{Name: uniqueName(t, "taken"), SourceVolumeId: source}
		c.createSnapshot(t, req)
		req.SourceVolumeId = c.createVolume(t, c.volumeRequest(t, "other", contractSize)).GetVolumeId()
		_, err := c.driver.CreateSnapshot(t.Context(), req)
		wantError(t, err, codes.AlreadyExists, csi.OutcomeUnknown)
	})
	t.Run("a volume that does not exist is rejected", func(t *testing.T) {
		_, err := c.driver.CreateSnapshot(t.Context(), &csipb.CreateSnapshotRequest{Name: uniqueName(t, "orphan"), SourceVolumeId: "no-such-volume"})
		wantError(t, err, codes.NotFound, csi.Failed)
	})
	t.Run("a snapshot that is gone is deleted", func(t *testing.T) {
		id := c.createSnapshot(t, &csipb.CreateSnapshotRequest{Name: uniqueName(t, "gone"), SourceVolumeId: source}).GetSnapshotId()
		if err := c.driver.WithPrecondition(csi.Unconditional).DeleteSnapshot(t.Context(), &csipb.DeleteSnapshotRequest{SnapshotId: id}); err != nil {
			t.Error(err)
		}
	})
}

func (c *contract) listingSnapshots(t *testing.T) {
	c.needs(t, csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT)
	source := c.createVolume(t, c.volumeRequest(t, "source", contractSize)).GetVolumeId()
	wanted := make(map[string]bool)
	for _, suffix := range []string{"a", "b", "c"} {
		wanted[c.createSnapshot(t, &csipb.CreateSnapshotRequest{Name: uniqueName(t, suffix), SourceVolumeId: source}).GetSnapshotId()] = true
	}
	t.Run("a list by source has each snapshot once", func(t *testing.T) {
		seen := 0
		for entry, err := range c.driver.ListSnapshots(t.Context(), &csipb.ListSnapshotsRequest{SourceVolumeId: source, MaxEntries: 2}) {
			if err != nil {
				t.Fatal(err)
			}
			seen++
			if !wanted[entry.GetSnapshot().GetSnapshotId()] {
				t.Errorf("snapshot %s is not of this volume", entry.GetSnapshot().GetSnapshotId())
			}
		}
		if seen != len(wanted) {
			t.Errorf("%d were listed, there are %d", seen, len(wanted))
		}
	})
	t.Run("each snapshot is found by its id", func(t *testing.T) {
		for id := range wanted {
			if _, err := c.driver.GetSnapshot(t.Context(), &csipb.GetSnapshotRequest{SnapshotId: id}); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("a missing snapshot is not found", func(t *testing.T) {
		_, err := c.driver.GetSnapshot(t.Context(), &csipb.GetSnapshotRequest{SnapshotId: "no-such-snapshot"})
		wantError(t, err, codes.NotFound, csi.Failed)
	})
}
