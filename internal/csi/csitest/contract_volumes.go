package csitest

import (
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-io/holdfast/internal/csi"
)

func (c *contract) creating(t *testing.T) {
	c.needs(t, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
	t.Run("the same request gets the same response", func(t *testing.T) {
		req := c.volumeRequest(t, "same", contractSize)
		first := c.createVolume(t, req)
		second, err := c.driver.CreateVolume(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, first, second)
	})
	t.Run("an existing name with a larger size is rejected", func(t *testing.T) {
		req := c.volumeRequest(t, "taken", contractSize)
		c.createVolume(t, req)
		req.CapacityRange = &csipb.CapacityRange{RequiredBytes: 8 * contractSize}
		_, err := c.driver.CreateVolume(t.Context(), req)
		wantError(t, err, codes.AlreadyExists, csi.OutcomeUnknown)
	})
	t.Run("a request without a name is infeasible", func(t *testing.T) {
		req := c.volumeRequest(t, "", contractSize)
		req.Name = ""
		_, err := c.driver.CreateVolume(t.Context(), req)
		wantError(t, err, codes.InvalidArgument, csi.Infeasible)
	})
	t.Run("a request without capabilities is infeasible", func(t *testing.T) {
		req := c.volumeRequest(t, "incapable", contractSize)
		req.VolumeCapabilities = nil
		_, err := c.driver.CreateVolume(t.Context(), req)
		wantError(t, err, codes.InvalidArgument, csi.Infeasible)
	})
}

func (c *contract) sizes(t *testing.T) {
	c.needs(t, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
	t.Run("a volume is at least what was required", func(t *testing.T) {
		if got := c.createVolume(t, c.volumeRequest(t, "least", contractSize)).GetCapacityBytes(); got < contractSize {
			t.Errorf("it has %d bytes, %d were required", got, contractSize)
		}
	})
	t.Run("a volume is at most the limit", func(t *testing.T) {
		req := c.volumeRequest(t, "most", contractSize)
		req.CapacityRange.LimitBytes = contractSize
		if got := c.createVolume(t, req).GetCapacityBytes(); got != contractSize {
			t.Errorf("it has %d bytes, exactly %d were allowed", got, contractSize)
		}
	})
}

func (c *contract) deleting(t *testing.T) {
	c.needs(t, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
	t.Run("a volume that is gone is deleted", func(t *testing.T) {
		id := c.createVolume(t, c.volumeRequest(t, "gone", contractSize)).GetVolumeId()
		c.deleteVolume(t, id)
		c.deleteVolume(t, id)
	})
	t.Run("a request without an id is rejected", func(t *testing.T) {
		err := c.driver.WithPrecondition(csi.Unconditional).DeleteVolume(t.Context(), &csipb.DeleteVolumeRequest{})
		wantError(t, err, codes.InvalidArgument, csi.Failed)
	})
}

func (c *contract) expanding(t *testing.T) {
	c.needs(t, csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
	ask := func(id string, bytes int64) *csipb.ControllerExpandVolumeRequest {
		return &csipb.ControllerExpandVolumeRequest{
			VolumeId: id, CapacityRange: &csipb.CapacityRange{RequiredBytes: bytes}, VolumeCapability: oneWriter(),
		}
	}
	t.Run("the same request gets the same response", func(t *testing.T) {
		id := c.createVolume(t, c.volumeRequest(t, "grow", contractSize)).GetVolumeId()
		first, err := c.driver.ControllerExpandVolume(t.Context(), ask(id, 2*contractSize))
		if err != nil {
			t.Fatal(err)
		}
		second, err := c.driver.ControllerExpandVolume(t.Context(), ask(id, 2*contractSize))
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, first, second)
	})
	t.Run("a volume never shrinks", func(t *testing.T) {
		id := c.createVolume(t, c.volumeRequest(t, "shrink", 2*contractSize)).GetVolumeId()
		got, err := c.driver.ControllerExpandVolume(t.Context(), ask(id, contractSize))
		if err == nil && got.GetCapacityBytes() < 2*contractSize {
			t.Errorf("it has %d bytes and had %d", got.GetCapacityBytes(), 2*contractSize)
		}
	})
	t.Run("a missing volume cannot be expanded", func(t *testing.T) {
		_, err := c.driver.ControllerExpandVolume(t.Context(), ask("no-such-volume", contractSize))
		wantError(t, err, codes.NotFound, csi.Infeasible)
	})
}

func (c *contract) modifying(t *testing.T) {
	c.needs(t, csipb.ControllerServiceCapability_RPC_MODIFY_VOLUME, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
	t.Run("an unknown parameter is infeasible", func(t *testing.T) {
		err := c.driver.ControllerModifyVolume(t.Context(), &csipb.ControllerModifyVolumeRequest{
			VolumeId:          c.createVolume(t, c.volumeRequest(t, "modify", contractSize)).GetVolumeId(),
			MutableParameters: map[string]string{"no.such.parameter": "1"},
		})
		wantError(t, err, codes.InvalidArgument, csi.Infeasible)
	})
	t.Run("a volume that does not exist is rejected", func(t *testing.T) {
		err := c.driver.ControllerModifyVolume(t.Context(), &csipb.ControllerModifyVolumeRequest{VolumeId: "no-such-volume"})
		wantError(t, err, codes.NotFound, csi.Failed)
	})
}

func (c *contract) publishing(t *testing.T) {
	c.needs(t, csipb.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
	if c.node == "" {
		t.Skip("the driver has no node service to get a node id from")
	}
	t.Run("publish and unpublish can be repeated", func(t *testing.T) {
		volume := c.createVolume(t, c.volumeRequest(t, "publish", contractSize))
		req := &csipb.ControllerPublishVolumeRequest{
			VolumeId: volume.GetVolumeId(), NodeId: c.node, VolumeCapability: oneWriter(), VolumeContext: volume.GetVolumeContext(),
		}
		for range 2 {
			if _, err := c.driver.ControllerPublishVolume(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			err := c.driver.WithPrecondition(csi.Unconditional).ControllerUnpublishVolume(t.Context(), &csipb.ControllerUnpublishVolumeRequest{VolumeId: volume.GetVolumeId(), NodeId: c.node})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("a volume that does not exist is rejected", func(t *testing.T) {
		_, err := c.driver.ControllerPublishVolume(t.Context(), &csipb.ControllerPublishVolumeRequest{
			VolumeId: "no-such-volume", NodeId: c.node, VolumeCapability: oneWriter(),
		})
		wantError(t, err, codes.NotFound, csi.Failed)
	})
}

func (c *contract) listingVolumes(t *testing.T) {
	c.needs(t, csipb.ControllerServiceCapability_RPC_LIST_VOLUMES, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
	wanted := make(map[string]int)
	for _, suffix := range []string{"a", "b", "c"} {
		wanted[c.createVolume(t, c.volumeRequest(t, suffix, contractSize)).GetVolumeId()] = 1
	}
	for _, size := range []int32{0, 1, 2} {
		seen := make(map[string]int)
		for entry, err := range c.driver.ListVolumes(t.Context(), size) {
			if err != nil {
				t.Fatalf("pages of %d: %v", size, err)
			}
			seen[entry.GetVolume().GetVolumeId()]++
		}
		for id := range wanted {
			if seen[id] != 1 {
				t.Errorf("pages of %d: volume %s was listed %d times", size, id, seen[id])
			}
		}
	}
}

func (c *contract) capacity(t *testing.T) {
	c.needs(t, csipb.ControllerServiceCapability_RPC_GET_CAPACITY)
	req := &csipb.GetCapacityRequest{VolumeCapabilities: []*csipb.VolumeCapability{oneWriter()}}
	if c.accessible != nil {
		req.AccessibleTopology = c.accessible.GetRequisite()[0]
	}
	if _, err := c.driver.GetCapacity(t.Context(), req); err != nil {
		t.Error(err)
	}
}
