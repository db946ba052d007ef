package local

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

func attaching(o *Options) { o.Attach = true }

func (d *testDriver) publishedTo(t *testing.T, id string) []string {
	t.Helper()
	list, err := d.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	must(t, err)
	one, err := d.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: id})
	must(t, err)
	nodes := one.GetStatus().GetPublishedNodeIds()
	if listed := list.GetEntries()[0].GetStatus().GetPublishedNodeIds(); len(listed) != len(nodes) {
		t.Errorf("ListVolumes says %v and ControllerGetVolume %v", listed, nodes)
	}
	return nodes
}

func TestControllerPublishFollowsTheSpec(t *testing.T) {
	d := serveIn(t, attaching)
	id := d.create(t, "v", 20*mib, nil, capability(writer, "ext4")).GetVolume().GetVolumeId()
	base := &csi.ControllerPublishVolumeRequest{VolumeId: id, NodeId: "n1", VolumeCapability: capability(writer, "ext4")}
	first, err := d.ControllerPublishVolume(t.Context(), base)
	must(t, err)
	tests := map[string]struct {
		change func(*csi.ControllerPublishVolumeRequest)
		want   codes.Code
	}{
		"the same again":    {func(*csi.ControllerPublishVolumeRequest) {}, codes.OK},
		"read-only":         {func(r *csi.ControllerPublishVolumeRequest) { r.Readonly = true }, codes.AlreadyExists},
		"no capability":     {func(r *csi.ControllerPublishVolumeRequest) { r.VolumeCapability = nil }, codes.InvalidArgument},
		"as a raw device":   {func(r *csi.ControllerPublishVolumeRequest) { r.VolumeCapability = rawCapability() }, codes.InvalidArgument},
		"an unknown node":   {func(r *csi.ControllerPublishVolumeRequest) { r.NodeId = "n2" }, codes.NotFound},
		"an unknown volume": {func(r *csi.ControllerPublishVolumeRequest) { r.VolumeId = "vol-x" }, codes.NotFound},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := proto.Clone(base).(*csi.ControllerPublishVolumeRequest)
			tt.change(r)
			got, err := d.ControllerPublishVolume(t.Context(), r)
			wantCode(t, err, tt.want)
			if err == nil {
				wantSameBytes(t, first, got)
			}
		})
	}
	if nodes := d.publishedTo(t, id); len(nodes) != 1 || nodes[0] != "n1" {
		t.Errorf("published to %v", nodes)
	}
	_, err = d.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
	wantCode(t, err, codes.FailedPrecondition)
	for _, r := range []*csi.ControllerUnpublishVolumeRequest{{VolumeId: id, NodeId: "n1"}, {VolumeId: id, NodeId: "n1"}, {VolumeId: id}, {VolumeId: "vol-x", NodeId: "n9"}} {
		_, err := d.ControllerUnpublishVolume(t.Context(), r)
		must(t, err)
	}
	if nodes := d.publishedTo(t, id); len(nodes) != 0 {
		t.Errorf("published to %v", nodes)
	}
	_, err = d.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
		VolumeId: id, StagingTargetPath: d.dir, VolumeCapability: base.VolumeCapability, PublishContext: first.GetPublishContext(),
	})
	wantCode(t, err, codes.FailedPrecondition)
}

func TestAttachedVolumesHaveNoTopology(t *testing.T) {
	d := serveIn(t, attaching)
	node, err := d.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	must(t, err)
	v := d.create(t, "v", 20*mib, nil, capability(writer, ""))
	if node.GetAccessibleTopology() != nil || v.GetVolume().GetAccessibleTopology() != nil {
		t.Errorf("got %v and %v", node, v)
	}
	_, err = d.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: "w", VolumeCapabilities: []*csi.VolumeCapability{capability(writer, "")}, AccessibilityRequirements: on("n1")})
	wantCode(t, err, codes.InvalidArgument)
	room, err := d.GetCapacity(t.Context(), &csi.GetCapacityRequest{})
	must(t, err)
	if room.GetAvailableCapacity() == 0 {
		t.Error("there is no room")
	}
}

func TestServicesOfEachProcess(t *testing.T) {
	for services, want := range map[string][3]codes.Code{ // of a call that publishing needs, of one that only the controller has, and of a node's
		controllerService: {codes.OK, codes.OK, codes.Unimplemented},
		publishService:    {codes.OK, codes.Unimplemented, codes.Unimplemented},
		nodeService:       {codes.Unimplemented, codes.Unimplemented, codes.OK},
	} {
		t.Run(services, func(t *testing.T) {
			d := serveIn(t, attaching, func(o *Options) { o.Services = services })
			_, err := d.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
			wantCode(t, err, want[0])
			_, err = d.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "vol-x"})
			wantCode(t, err, want[1])
			_, err = d.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
			wantCode(t, err, want[2])
			_, err = d.Probe(t.Context(), &csi.ProbeRequest{})
			must(t, err)
		})
	}
}
