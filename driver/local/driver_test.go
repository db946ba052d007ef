package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/disk/disktest"
	"github.com/holdfast-io/holdfast/driver/local/stage"
	"github.com/holdfast-io/holdfast/driver/local/volume"
)

const mib = 1 << 20

// testDriver is a driver behind its socket.
type testDriver struct {
	csi.IdentityClient
	csi.ControllerClient
	csi.NodeClient
	csi.GroupControllerClient
	dir   string
	store *volume.Store
}

// serveIn serves a driver with a capacity of 10 GiB in a new directory until the test
// ends.
func serveIn(t *testing.T, change ...func(*Options)) *testDriver {
	t.Helper()
	dir := disktest.Dir(t)
	o := &Options{Address: filepath.Join(dir, "csi.sock"), NodeID: "n1", DriverName: "local.holdfast.io", Services: allServices, MaxVolumes: 7, Version: "v1", IgnoredParameters: []string{"replicaCount"}}
	must(t, o.Capacity.Set("10Gi"))
	for _, c := range change {
		c(o)
	}
	store, err := volume.Open(filepath.Join(dir, "data"), o.storeOptions())
	must(t, err)
	listener, err := listen(o.sockets()[0])
	must(t, err)
	ctx, stop := context.WithCancel(klog.NewContext(context.Background(), logr.Discard()))
	done := make(chan error, 1)
	go func() { done <- serve(ctx, o, store, []net.Listener{listener}) }()
	conn, err := grpc.NewClient("unix://"+o.sockets()[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() {
		must(t, conn.Close())
		stop()
		must(t, <-done)
		must(t, store.Close())
	})
	return &testDriver{csi.NewIdentityClient(conn), csi.NewControllerClient(conn), csi.NewNodeClient(conn), csi.NewGroupControllerClient(conn), dir, store}
}

func quiet(t *testing.T) context.Context {
	return klog.NewContext(t.Context(), logr.Discard())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func capability(mode csi.VolumeCapability_AccessMode_Mode, fsType string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fsType}},
	}
}

func rawCapability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: writer},
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}
}

const writer = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER

func on(nodes ...string) *csi.TopologyRequirement {
	r := &csi.TopologyRequirement{}
	for _, n := range nodes {
		r.Requisite = append(r.Requisite, &csi.Topology{Segments: map[string]string{"local.holdfast.io/node": n}})
	}
	return r
}

// createVolumeRequests are changes to a request with defaults only.
var createVolumeRequests = map[string]struct {
	change func(*csi.CreateVolumeRequest)
	want   codes.Code
	says   string
	size   int64
}{
	"defaults":                    {func(*csi.CreateVolumeRequest) {}, codes.OK, "", 1 << 30},
	"a small ext4 is made usable": {func(r *csi.CreateVolumeRequest) { r.CapacityRange = &csi.CapacityRange{RequiredBytes: 1} }, codes.OK, "", 16 * mib},
	"a small xfs is made usable": {func(r *csi.CreateVolumeRequest) {
		r.VolumeCapabilities[0] = capability(writer, "xfs")
		r.CapacityRange = &csi.CapacityRange{RequiredBytes: 1}
	}, codes.OK, "", 300 * mib},
	"a small raw device is small": {func(r *csi.CreateVolumeRequest) {
		r.VolumeCapabilities[0] = rawCapability()
		r.CapacityRange = &csi.CapacityRange{RequiredBytes: 1}
	}, codes.OK, "", mib},
	"too small a limit for xfs": {func(r *csi.CreateVolumeRequest) {
		r.VolumeCapabilities[0] = capability(writer, "xfs")
		r.CapacityRange = &csi.CapacityRange{LimitBytes: 299 * mib}
	}, codes.OutOfRange, "300 MiB", 0},
	"more than the capacity":    {func(r *csi.CreateVolumeRequest) { r.CapacityRange = &csi.CapacityRange{RequiredBytes: 11 << 30} }, codes.ResourceExhausted, "11 GiB are asked for", 0},
	"a negative size":           {func(r *csi.CreateVolumeRequest) { r.CapacityRange = &csi.CapacityRange{RequiredBytes: -1} }, codes.InvalidArgument, "negative", 0},
	"no capability":             {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = nil }, codes.InvalidArgument, "capabilities", 0},
	"a capability without type": {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].AccessType = nil }, codes.InvalidArgument, "access type", 0},
	"a capability without mode": {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].AccessMode = nil }, codes.InvalidArgument, "access mode", 0},
	"use on many nodes": {func(r *csi.CreateVolumeRequest) {
		r.VolumeCapabilities[0] = capability(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, "")
	}, codes.InvalidArgument, "ReadWriteOnce", 0},
	"an unknown filesystem": {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0] = capability(writer, "btrfs") }, codes.InvalidArgument, "btrfs", 0},
	"two filesystems": {func(r *csi.CreateVolumeRequest) {
		r.VolumeCapabilities = []*csi.VolumeCapability{capability(writer, "ext4"), capability(writer, "xfs")}
	}, codes.InvalidArgument, "both", 0},
	"one of two names it": {func(r *csi.CreateVolumeRequest) {
		r.VolumeCapabilities = []*csi.VolumeCapability{capability(writer, ""), capability(writer, "xfs")}
	}, codes.OK, "", 1 << 30},
	"too many mount flags": {func(r *csi.CreateVolumeRequest) {
		r.VolumeCapabilities[0].GetMount().MountFlags = []string{strings.Repeat("x", maxMap+1)}
	}, codes.InvalidArgument, "mount flags", 0},
	"an unknown parameter":      {func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"type": "fast"} }, codes.InvalidArgument, `"type"`, 0},
	"a parameter to be ignored": {func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"replicaCount": "3"} }, codes.OK, "", 1 << 30},
	"what the provisioner adds": {func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"csi.storage.k8s.io/pvc/name": "a"} }, codes.OK, "", 1 << 30},
	"too many parameters":       {func(r *csi.CreateVolumeRequest) { r.Parameters = longParameters() }, codes.InvalidArgument, "parameters have more", 0},
	"mutable parameters":        {func(r *csi.CreateVolumeRequest) { r.MutableParameters = map[string]string{"iops": "1"} }, codes.InvalidArgument, `"iops"`, 0},
	"this node":                 {func(r *csi.CreateVolumeRequest) { r.AccessibilityRequirements = on("n0", "n1") }, codes.OK, "", 1 << 30},
	"another node":              {func(r *csi.CreateVolumeRequest) { r.AccessibilityRequirements = on("n0") }, codes.ResourceExhausted, "n1", 0},
	"another driver's topology": {func(r *csi.CreateVolumeRequest) {
		r.AccessibilityRequirements = on("n1")
		r.AccessibilityRequirements.Requisite[0].Segments["zone"] = "z"
	}, codes.ResourceExhausted, "n1", 0},
	"an empty source":         {func(r *csi.CreateVolumeRequest) { r.VolumeContentSource = &csi.VolumeContentSource{} }, codes.InvalidArgument, "source", 0},
	"a source without an ID":  {func(r *csi.CreateVolumeRequest) { r.VolumeContentSource = fromVolume("") }, codes.InvalidArgument, "source", 0},
	"a source that is a path": {func(r *csi.CreateVolumeRequest) { r.VolumeContentSource = fromVolume("../volumes/x") }, codes.NotFound, "source", 0},
	"a control character":     {func(r *csi.CreateVolumeRequest) { r.Name += "\x01" }, codes.InvalidArgument, "U+0001", 0},
}

func longParameters() map[string]string {
	long := map[string]string{}
	for _, k := range knownParameters {
		long[k] = strings.Repeat("x", 1000)
	}
	return long
}

func TestCreateVolumeRequests(t *testing.T) {
	d := serveIn(t)
	base := &csi.CreateVolumeRequest{VolumeCapabilities: []*csi.VolumeCapability{capability(writer, "")}}
	for name, tt := range createVolumeRequests {
		t.Run(name, func(t *testing.T) {
			r := proto.Clone(base).(*csi.CreateVolumeRequest)
			r.Name = name
			tt.change(r)
			got, err := d.CreateVolume(t.Context(), r)
			wantCode(t, err, tt.want)
			if err != nil {
				if !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%v does not say %q", err, tt.says)
				}
				return
			}
			if got.GetVolume().GetCapacityBytes() != tt.size {
				t.Errorf("size = %d", got.GetVolume().GetCapacityBytes())
			}
			if diff := cmp.Diff(on("n1").Requisite, got.GetVolume().GetAccessibleTopology(), protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			again, err := d.CreateVolume(t.Context(), r)
			must(t, err)
			wantSameBytes(t, got, again)
			_, err = d.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: got.GetVolume().GetVolumeId()})
			must(t, err)
		})
	}
}

func fromVolume(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

func wantSameBytes(t *testing.T, a, b proto.Message) {
	t.Helper()
	stable := proto.MarshalOptions{Deterministic: true}
	one, err := stable.Marshal(a)
	must(t, err)
	two, err := stable.Marshal(b)
	must(t, err)
	if string(one) != string(two) {
		t.Errorf("the answers differ: %s", cmp.Diff(a, b, protocmp.Transform()))
	}
}

func (d *testDriver) create(t *testing.T, name string, size int64, source *csi.VolumeContentSource, c *csi.VolumeCapability) *csi.CreateVolumeResponse {
	t.Helper()
	v, err := d.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: name, VolumeCapabilities: []*csi.VolumeCapability{c},
		CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeContentSource: source})
	must(t, err)
	return v
}

func TestRepeatedCreateVolumeReturnsItsContentSource(t *testing.T) {
	d := serveIn(t)
	v := d.create(t, "v", 20*mib, nil, capability(writer, ""))
	request := &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: v.GetVolume().GetVolumeId()}
	snap, err := d.CreateSnapshot(t.Context(), request)
	must(t, err)
	again, err := d.CreateSnapshot(t.Context(), request)
	must(t, err)
	wantSameBytes(t, snap, again)
	if s := snap.GetSnapshot(); !s.GetReadyToUse() || !s.GetCreationTime().IsValid() || s.GetSizeBytes() != 20*mib {
		t.Errorf("snapshot %v", s)
	}
	fromSnapshot := &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snap.GetSnapshot().GetSnapshotId()}}}
	for name, source := range map[string]*csi.VolumeContentSource{"clone": fromVolume(v.GetVolume().GetVolumeId()), "restored": fromSnapshot} {
		first := d.create(t, name, 30*mib, source, capability(writer, ""))
		wantSameBytes(t, first, d.create(t, name, 30*mib, source, capability(writer, "")))
		if diff := cmp.Diff(source, first.GetVolume().GetContentSource(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestGetCapacity(t *testing.T) {
	d := serveIn(t)
	tests := map[string]struct {
		ask            *csi.GetCapacityRequest
		left, smallest int64
	}{
		"defaults":      {&csi.GetCapacityRequest{}, 10 << 30, mib},
		"this node":     {&csi.GetCapacityRequest{AccessibleTopology: on("n1").Requisite[0]}, 10 << 30, mib},
		"another node":  {&csi.GetCapacityRequest{AccessibleTopology: on("n2").Requisite[0]}, 0, 0},
		"xfs":           {&csi.GetCapacityRequest{VolumeCapabilities: []*csi.VolumeCapability{capability(writer, "xfs")}}, 10 << 30, 300 * mib},
		"many nodes":    {&csi.GetCapacityRequest{VolumeCapabilities: []*csi.VolumeCapability{capability(csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY, "")}}, 0, 0},
		"no such thing": {&csi.GetCapacityRequest{Parameters: map[string]string{"type": "fast"}}, 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := d.GetCapacity(t.Context(), tt.ask)
			must(t, err)
			if got.GetAvailableCapacity() != tt.left || got.GetMaximumVolumeSize().GetValue() != tt.left || got.GetMinimumVolumeSize().GetValue() != tt.smallest {
				t.Errorf("got %v", got)
			}
		})
	}
}

// pages calls get for each page until there is no next token.
func pages(get func(token string) (next string)) {
	for token := get(""); token != ""; {
		token = get(token)
	}
}

func TestPaging(t *testing.T) {
	d := serveIn(t)
	source := ""
	for n := range 5 {
		source = d.create(t, fmt.Sprint(n), mib, nil, rawCapability()).GetVolume().GetVolumeId()
		_, err := d.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: fmt.Sprint(n), SourceVolumeId: source})
		must(t, err)
	}
	seen := map[string]bool{}
	pages(func(token string) string {
		page, err := d.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: 2, StartingToken: token})
		must(t, err)
		for _, e := range page.GetEntries() {
			seen[e.GetVolume().GetVolumeId()] = true
		}
		return page.GetNextToken()
	})
	pages(func(token string) string {
		page, err := d.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{MaxEntries: 2, StartingToken: token})
		must(t, err)
		for _, e := range page.GetEntries() {
			seen[e.GetSnapshot().GetSnapshotId()] = true
		}
		return page.GetNextToken()
	})
	if len(seen) != 10 {
		t.Errorf("saw %d of 5 volumes and 5 snapshots", len(seen))
	}
	_, err := d.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: -1})
	wantCode(t, err, codes.InvalidArgument)
	_, err = d.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{StartingToken: "../x"})
	wantCode(t, err, codes.Aborted)
	both, err := d.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{SnapshotId: "snap-x", SourceVolumeId: source})
	must(t, err)
	if len(both.GetEntries()) != 0 {
		t.Errorf("got %v", both)
	}
}

func TestHealthOfAllVolumes(t *testing.T) {
	d := serveIn(t)
	d.create(t, "whole", mib, nil, rawCapability())
	for _, name := range []string{"a", "b"} {
		id := d.create(t, name, mib, nil, rawCapability()).GetVolume().GetVolumeId()
		must(t, os.Remove(d.store.ImagePath(volume.Volume{ID: id})))
		one, err := d.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: id})
		must(t, err)
		entries := one.GetVolumeHealth().GetHealthStatuses()
		if len(entries) != 1 || entries[0].GetStatus() != csi.VolumeHealthErrorType_DATA_LOSS || entries[0].GetReason() != "ImageMissing" {
			t.Errorf("got %v", one)
		}
		_, err = d.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: d.dir, VolumeCapability: rawCapability()})
		wantCode(t, err, codes.DataLoss)
	}
	first, err := d.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{MaxEntries: 1})
	must(t, err)
	second, err := d.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{MaxEntries: 1, StartingToken: first.GetNextToken()})
	must(t, err)
	if len(first.GetEntries()) != 1 || len(second.GetEntries()) != 1 || second.GetNextToken() != "" {
		t.Errorf("got %v and %v", first, second)
	}
	_, err = d.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: "vol-x"})
	wantCode(t, err, codes.NotFound)
	storage, err := d.NodeGetStorageHealth(t.Context(), &csi.NodeGetStorageHealthRequest{})
	must(t, err)
	if len(storage.GetBackendHealth()) != 0 {
		t.Errorf("got %v", storage)
	}
}

func TestALostDataDirectoryIsReported(t *testing.T) {
	d := serveIn(t)
	must(t, os.Rename(filepath.Join(d.dir, "data"), filepath.Join(d.dir, "elsewhere")))
	_, err := d.Probe(t.Context(), &csi.ProbeRequest{})
	wantCode(t, err, codes.FailedPrecondition)
	storage, err := d.NodeGetStorageHealth(t.Context(), &csi.NodeGetStorageHealthRequest{})
	must(t, err)
	if b := storage.GetBackendHealth(); len(b) != 1 || b[0].GetStatus() != csi.StorageHealthErrorType_STORAGE_UNREACHABLE {
		t.Errorf("got %v", storage)
	}
}

func TestIdentityAndNode(t *testing.T) {
	d := serveIn(t)
	info, err := d.GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{})
	must(t, err)
	node, err := d.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	must(t, err)
	if info.GetName() != "local.holdfast.io" || info.GetVendorVersion() != "v1" || node.GetNodeId() != "n1" || node.GetMaxVolumesPerNode() != 7 {
		t.Errorf("got %v and %v", info, node)
	}
	if diff := cmp.Diff(on("n1").Requisite[0], node.GetAccessibleTopology(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	_, err = d.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{})
	wantCode(t, err, codes.Unimplemented)
}

func TestValidateVolumeCapabilities(t *testing.T) {
	d := serveIn(t)
	id := d.create(t, "v", 20*mib, nil, capability(writer, "ext4")).GetVolume().GetVolumeId()
	tests := map[string]struct {
		c    *csi.VolumeCapability
		want bool
	}{
		"as it was made":       {capability(writer, "ext4"), true},
		"without a filesystem": {capability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, ""), true},
		"another filesystem":   {capability(writer, "xfs"), false},
		"as a raw device":      {rawCapability(), false},
		"on many nodes":        {capability(csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER, ""), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := d.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id, VolumeCapabilities: []*csi.VolumeCapability{tt.c}})
			must(t, err)
			if (got.GetConfirmed() != nil) != tt.want || (got.GetMessage() == "") != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestCode(t *testing.T) {
	tests := map[string]struct {
		err  error
		want codes.Code
	}{
		"wrapped":                    {fmt.Errorf("a: %w", fmt.Errorf("b: %w", volume.ErrOutOfCapacity)), codes.ResourceExhausted},
		"a lock wait that timed out": {fmt.Errorf("%w: %w", volume.ErrPending, context.DeadlineExceeded), codes.Aborted},
		"published elsewhere":        {stage.ErrConflictingUse, codes.AlreadyExists},
		"no rights":                  {disk.ErrUnprivileged, codes.FailedPrecondition},
		"a damaged source":           {fmt.Errorf("source: %w", volume.ErrDamaged), codes.DataLoss},
		"the machine's":              {os.ErrPermission, codes.Internal},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := status.Code(toStatus(tt.err)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestLogsHaveNoSecrets(t *testing.T) {
	c := capability(writer, "ext4")
	c.GetMount().MountFlags = []string{"password=hunter2"}
	secrets := map[string]string{"key": "hunter2"}
	for _, r := range []proto.Message{
		&csi.CreateVolumeRequest{Name: "v", Secrets: secrets, VolumeCapabilities: []*csi.VolumeCapability{c}},
		&csi.NodeStageVolumeRequest{VolumeId: "v", Secrets: secrets, VolumeCapability: c},
		&csi.ListSnapshotsRequest{SnapshotId: "v", Secrets: secrets},
	} {
		before := proto.Clone(r)
		if got := loggable(r).String(); strings.Contains(got, "hunter2") || !strings.Contains(got, `"v"`) {
			t.Errorf("logged %s", got)
		}
		if !proto.Equal(before, r) {
			t.Error("the request was changed")
		}
	}
}

func TestRun(t *testing.T) {
	t.Run("all invalid options are reported at once", func(t *testing.T) {
		o := Options{Address: "tcp://1", NodeID: "a b", DriverName: "Bad_Name", MaxVolumes: -1, Services: nodeService}
		must(t, o.Capacity.Set("-1"))
		err := o.Validate()
		for _, flag := range []string{"--csi-address", "--services", "--node-id", "--driver-name", "--data-dir", "--capacity", "--max-volumes"} {
			if !strings.Contains(fmt.Sprint(err), flag) {
				t.Errorf("%s is not in: %v", flag, err)
			}
		}
	})
	good := func(t *testing.T) Options {
		dir := t.TempDir()
		return Options{Address: "unix://" + filepath.Join(dir, "csi.sock"), NodeID: "n", DriverName: "d", Services: allServices, DataDir: filepath.Join(dir, "data")}
	}
	t.Run("it stops with its context and can be started again", func(t *testing.T) {
		o := good(t)
		ctx, cancel := context.WithCancel(quiet(t))
		cancel()
		for range 2 {
			must(t, Run(ctx, o))
		}
	})
	t.Run("it serves all sockets or none", func(t *testing.T) {
		o := good(t)
		o.Address += "," + filepath.Join(filepath.Dir(o.DataDir), "second.sock")
		ctx, cancel := context.WithCancel(quiet(t))
		ended := make(chan error, 1)
		go func() {
			defer cancel() // Stop the other waiters if this fails.
			ended <- Run(ctx, o)
		}()
		for _, socket := range o.sockets() {
			conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
			must(t, err)
			_, err = csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
			must(t, errors.Join(err, conn.Close()))
		}
		cancel()
		must(t, <-ended)
		second, err := listen(o.sockets()[1])
		must(t, err)
		defer second.Close()
		if err := Run(quiet(t), o); err == nil || !strings.Contains(err.Error(), "second.sock") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Lstat(o.sockets()[0]); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the first socket stayed: %v", err)
		}
	})
	t.Run("a socket of a dead process is replaced", func(t *testing.T) {
		o := good(t)
		stale, err := listen(o.sockets()[0])
		must(t, err)
		stale.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
		must(t, stale.Close())
		listener, err := listen(o.sockets()[0])
		must(t, err)
		must(t, listener.Close())
	})
	t.Run("a socket in use is not replaced", func(t *testing.T) {
		o := good(t)
		first, err := listen(o.sockets()[0])
		must(t, err)
		defer first.Close()
		if err := Run(quiet(t), o); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a file in its place is not removed", func(t *testing.T) {
		o := good(t)
		must(t, os.WriteFile(o.sockets()[0], nil, 0o600))
		if err := Run(quiet(t), o); err == nil {
			t.Error("it was started")
		}
	})
	t.Run("a data directory in use is not shared", func(t *testing.T) {
		o := good(t)
		store, err := volume.Open(o.DataDir, volume.Options{})
		must(t, err)
		defer func() { _ = store.Close() }()
		if err := Run(quiet(t), o); !errors.Is(err, volume.ErrLocked) {
			t.Errorf("got %v", err)
		}
	})
}

// sent reports when the client has passed a request to its connection.
type sent struct {
	stats.Handler
	out chan struct{}
}

func (s sent) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (s sent) HandleConn(context.Context, stats.ConnStats)                       {}
func (s sent) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (s sent) HandleRPC(_ context.Context, e stats.RPCStats) {
	if _, ok := e.(*stats.OutPayload); ok {
		s.out <- struct{}{}
	}
}

func TestShutdownWaitsForCalls(t *testing.T) {
	dir := t.TempDir()
	o := &Options{Address: filepath.Join(dir, "csi.sock"), NodeID: "n", DriverName: "d", Services: allServices}
	store, err := volume.Open(filepath.Join(dir, "data"), volume.Options{})
	must(t, err)
	defer func() { _ = store.Close() }()
	listener, err := listen(o.sockets()[0])
	must(t, err)
	ctx, stop := context.WithCancel(quiet(t))
	done := make(chan error, 1)
	go func() { done <- serve(ctx, o, store, []net.Listener{listener}) }()
	events := sent{out: make(chan struct{}, 2)}
	conn, err := grpc.NewClient("unix://"+o.sockets()[0], grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStatsHandler(events))
	must(t, err)
	defer conn.Close()

	v, err := store.Create(t.Context(), volume.Spec{Name: "v", Access: volume.Access{Block: true}})
	must(t, err)
	id := v.ID
	unlock, err := store.Lock(t.Context(), id)
	must(t, err)
	answer := make(chan error, 1)
	go func() {
		_, err := csi.NewControllerClient(conn).DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
		answer <- err
	}()
	<-events.out
	// One connection keeps its order: once this call returns, the other one is in
	// progress.
	_, err = csi.NewIdentityClient(conn).Probe(t.Context(), &csi.ProbeRequest{})
	must(t, err)
	stop()
	// The driver announces the shutdown (GOAWAY) but does not close the connection.
	conn.WaitForStateChange(t.Context(), connectivity.Ready)
	unlock()
	must(t, <-answer)
	must(t, <-done)
}

func TestFlagDefaultsFromTheEnvironment(t *testing.T) {
	t.Setenv("CSI_ENDPOINT", "/run/x.sock")
	t.Setenv("NODE_NAME", "n7")
	var o Options
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.AddFlags(fs)
	must(t, fs.Parse([]string{"--capacity=10Gi", "--data-dir=/d", "--max-volumes=3", "--driver-name=a.b"}))
	want := Options{Address: "/run/x.sock", NodeID: "n7", DataDir: "/d", MaxVolumes: 3, DriverName: "a.b", Services: allServices}
	if diff := cmp.Diff(want, o, cmpopts.IgnoreFields(Options{}, "Capacity")); diff != "" {
		t.Error(diff)
	}
	if o.Capacity.Value() != 10<<30 {
		t.Errorf("capacity = %d", o.Capacity.Value())
	}
	must(t, o.Validate())
}
