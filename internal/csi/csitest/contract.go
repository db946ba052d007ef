package csitest

import (
	"context"
	"fmt"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// contractSize in bytes is small enough for drivers with real storage, and most
// storage needs no rounding for it.
const contractSize = 64 << 20

// Contract tests the driver at the address for what the controllers rely on:
// repeated requests get the same response, sizes are as requested, lists are
// complete, and errors have codes with the right outcome. It skips what the driver
// does not announce. It needs the controller service and deletes all that it
// creates.
func Contract(t *testing.T, address string) {
	driver, err := csi.Connect(t.Context(), csi.Options{Address: address, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := driver.Close(); err != nil {
			t.Errorf("closing the connection: %v", err)
		}
	})
	info, err := driver.WaitReady(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := &contract{driver: driver, info: info}
	c.findNode(t)
	t.Run("creating", c.creating)
	t.Run("sizes", c.sizes)
	t.Run("deleting", c.deleting)
	t.Run("expanding", c.expanding)
	t.Run("modifying", c.modifying)
	t.Run("publishing", c.publishing)
	t.Run("listing volumes", c.listingVolumes)
	t.Run("capacity", c.capacity)
	t.Run("cloning", c.cloning)
	t.Run("snapshots", c.snapshots)
	t.Run("restoring", c.restoring)
	t.Run("listing snapshots", c.listingSnapshots)
	t.Run("groups of snapshots", c.groups)
}

type contract struct {
	driver     *csi.Driver
	info       csi.Info
	node       string                     // empty if there is no node service
	accessible *csipb.TopologyRequirement // nil without topology
}

func (c *contract) findNode(t *testing.T) {
	t.Helper()
	node, err := c.driver.NodeGetInfo(t.Context())
	if status.Code(err) == codes.Unimplemented {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	c.node = node.GetNodeId()
	if c.info.HasService(csipb.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS) {
		here := []*csipb.Topology{node.GetAccessibleTopology()}
		c.accessible = &csipb.TopologyRequirement{Requisite: here, Preferred: here}
	}
}

func (c *contract) needs(t *testing.T, all ...csipb.ControllerServiceCapability_RPC_Type) {
	t.Helper()
	for _, one := range all {
		if !c.info.Has(one) {
			t.Skipf("the driver does not announce %s", one)
		}
	}
}

// volumeRequest is a request for a volume of the size with a unique name.
func (c *contract) volumeRequest(t *testing.T, suffix string, bytes int64) *csipb.CreateVolumeRequest {
	t.Helper()
	return &csipb.CreateVolumeRequest{
		Name:                      uniqueName(t, suffix),
		CapacityRange:             &csipb.CapacityRange{RequiredBytes: bytes},
		VolumeCapabilities:        []*csipb.VolumeCapability{oneWriter()},
		AccessibilityRequirements: c.accessible,
	}
}

// uniqueName differs between runs, because the driver may have objects of earlier
// runs.
func uniqueName(t *testing.T, suffix string) string {
	t.Helper()
	return fmt.Sprintf("contract-%x-%s", time.Now().UnixNano(), suffix)
}

func oneWriter() *csipb.VolumeCapability {
	return &csipb.VolumeCapability{
		AccessMode: &csipb.VolumeCapability_AccessMode{Mode: csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csipb.VolumeCapability_Mount{Mount: &csipb.VolumeCapability_MountVolume{}},
	}
}

// createVolume creates a volume and deletes it at the end of the test.
func (c *contract) createVolume(t *testing.T, req *csipb.CreateVolumeRequest) *csipb.Volume {
	t.Helper()
	volume, err := c.driver.CreateVolume(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.deleteVolume(t, volume.GetVolumeId()) })
	return volume
}

func (c *contract) deleteVolume(t *testing.T, id string) {
	t.Helper()
	// The test's own context has ended when this runs in its cleanup.
	if err := c.driver.WithPrecondition(csi.Unconditional).DeleteVolume(context.WithoutCancel(t.Context()), &csipb.DeleteVolumeRequest{VolumeId: id}); err != nil {
		t.Error(err)
	}
}

func (c *contract) createSnapshot(t *testing.T, req *csipb.CreateSnapshotRequest) *csipb.Snapshot {
	t.Helper()
	snapshot, err := c.driver.CreateSnapshot(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := c.driver.WithPrecondition(csi.Unconditional).DeleteSnapshot(ctx, &csipb.DeleteSnapshotRequest{SnapshotId: snapshot.GetSnapshotId()}); err != nil {
			t.Error(err)
		}
	})
	return snapshot
}

// wantSame compares two responses byte by byte.
func wantSame(t *testing.T, first, second proto.Message) {
	t.Helper()
	var bytes [2]string
	for i, m := range []proto.Message{first, second} {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		bytes[i] = string(b)
	}
	if bytes[0] != bytes[1] {
		t.Errorf("the same request got another response:\nfirst  %v\nsecond %v", first, second)
	}
}

// wantError checks the code and the outcome of an error.
func wantError(t *testing.T, err error, code codes.Code, outcome csi.Outcome) {
	t.Helper()
	if status.Code(err) != code || csi.OutcomeOf(err) != outcome {
		t.Errorf("got %v (%s), want code %s (%s)", err, csi.OutcomeOf(err), code, outcome)
	}
}
