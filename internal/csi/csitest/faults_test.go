package csitest

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// waitTimeout limits waiting for something that must happen.
const waitTimeout = 30 * time.Second

// dial connects without the csi package, which would serialize calls.
func dial(t *testing.T, d *Driver) csipb.ControllerClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+d.Serve(t), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return csipb.NewControllerClient(conn)
}

func volumeRequest(name string) *csipb.CreateVolumeRequest {
	return &csipb.CreateVolumeRequest{
		Name: name, VolumeCapabilities: []*csipb.VolumeCapability{oneWriter()}, CapacityRange: &csipb.CapacityRange{RequiredBytes: 10},
	}
}

func waitFor(t *testing.T, what string, happened <-chan struct{}) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(waitTimeout):
		t.Fatalf("%s did not happen", what)
	}
}

func TestEachFaultAffectsOneCallInOrder(t *testing.T) {
	d := New(Options{Record: true})
	client := dial(t, d)
	d.FailNext(csi.CreateVolume, codes.Internal, "first")
	d.LoseResponse(csi.CreateVolume)
	var got []codes.Code
	var volumes []int
	for range 3 {
		_, err := client.CreateVolume(t.Context(), volumeRequest("a"))
		got, volumes = append(got, status.Code(err)), append(volumes, len(d.Volumes()))
	}
	if diff := cmp.Diff([]codes.Code{codes.Internal, codes.DeadlineExceeded, codes.OK}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int{0, 1, 1}, volumes); diff != "" {
		t.Errorf("volumes after each call: %s", diff)
	}
	if got := d.Calls(csi.CreateVolume); got != 3 {
		t.Errorf("%d calls were counted", got)
	}
	var logged []codes.Code
	for _, call := range d.Log() {
		logged = append(logged, call.Code)
	}
	if diff := cmp.Diff(got, logged); diff != "" {
		t.Errorf("the log has other codes: %s", diff)
	}
}

func TestHooks(t *testing.T) {
	d := New(Options{})
	client := dial(t, d)
	d.SetHooks(Hooks{Before: func(_ context.Context, method csi.Method, req any) error {
		return status.Errorf(codes.PermissionDenied, "%s of %s", method, req.(*csipb.CreateVolumeRequest).GetName())
	}})
	_, err := client.CreateVolume(t.Context(), volumeRequest("a"))
	if status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != "CreateVolume of a" || len(d.Volumes()) != 0 {
		t.Errorf("got %v, and %d volumes", err, len(d.Volumes()))
	}
	d.SetHooks(Hooks{After: func(_ context.Context, _ csi.Method, _, resp any, err error) (any, error) {
		resp.(*csipb.CreateVolumeResponse).Volume.VolumeId = "changed"
		return resp, err
	}})
	if resp, err := client.CreateVolume(t.Context(), volumeRequest("a")); err != nil || resp.GetVolume().GetVolumeId() != "changed" {
		t.Errorf("got %v, %v", resp, err)
	}
	if got := d.Volumes()[0].Info.GetVolumeId(); got != "volume-1" {
		t.Errorf("a hook changed what is stored: %q", got)
	}
}

func TestOverlappingCallsAreRecorded(t *testing.T) {
	d := New(Options{})
	client := dial(t, d)
	first, err := client.CreateVolume(t.Context(), volumeRequest("a"))
	if err != nil {
		t.Fatal(err)
	}
	slow := d.Block(csi.CreateVolume)
	var all sync.WaitGroup
	all.Go(func() { _, _ = client.CreateVolume(t.Context(), volumeRequest("a")) })
	waitFor(t, "the slow call", slow.Arrived())
	if _, err := client.DeleteVolume(t.Context(), &csipb.DeleteVolumeRequest{VolumeId: first.GetVolume().GetVolumeId()}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateVolume(t.Context(), volumeRequest("b")); err != nil {
		t.Fatal(err)
	}
	slow.Release()
	all.Wait()
	if diff := cmp.Diff([]string{"DeleteVolume while CreateVolume of volume-1 was running"}, d.Overlaps()); diff != "" {
		t.Error(diff)
	}
}

func TestACrashKeepsTheStorageAndFailsWaitingCalls(t *testing.T) {
	d := New(Options{})
	client := dial(t, d)
	if _, err := client.CreateVolume(t.Context(), volumeRequest("stored")); err != nil {
		t.Fatal(err)
	}
	slow := d.Block(csi.CreateVolume)
	failed := make(chan error, 1)
	go func() {
		_, err := client.CreateVolume(t.Context(), volumeRequest("waiting"))
		failed <- err
	}()
	waitFor(t, "the slow call", slow.Arrived())
	d.Crash()
	d.Crash() // a second crash does nothing
	select {
	case err := <-failed:
		if status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
	case <-time.After(waitTimeout):
		t.Fatal("the call outlived the driver")
	}
	slow.Release()
	if err := d.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := d.Restart(); err == nil {
		t.Error("a driver that runs was started a second time")
	}
	resp, err := client.CreateVolume(t.Context(), volumeRequest("stored"), grpc.WaitForReady(true))
	for deadline := time.Now().Add(waitTimeout); status.Code(err) == codes.Unavailable && time.Now().Before(deadline); {
		// The client had connected to the socket of the crashed driver a moment before that was closed.
		resp, err = client.CreateVolume(t.Context(), volumeRequest("stored"), grpc.WaitForReady(true))
	}
	if err != nil || resp.GetVolume().GetVolumeId() != "volume-1" {
		t.Errorf("got %v, %v", resp, err)
	}
	if got := d.Volumes(); len(got) != 1 {
		t.Errorf("there are %v", got)
	}
}

func TestWorkGoesOnWithoutTheCaller(t *testing.T) {
	d := New(Options{})
	client := dial(t, d)
	d.SetLatency(20 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := client.CreateVolume(ctx, volumeRequest("a")); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	d.SetLatency(0)
	tick, end := time.NewTicker(time.Millisecond), time.After(waitTimeout)
	defer tick.Stop()
	for d.Calls(csi.CreateVolume) == 1 && len(d.Volumes()) == 0 {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("the work was not done")
		}
	}
}

func TestListenReplacesAnOldSocketOnly(t *testing.T) {
	d := New(Options{})
	if err := d.Listen(filepath.Join(t.TempDir(), "no", "such", "directory")); err == nil {
		t.Error("it listens nowhere")
		d.Crash()
	}
}
