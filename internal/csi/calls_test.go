package csi_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

// Concurrent calls of every kind about the same volumes.
func TestCallsAboutOneVolumeNeverOverlap(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	ids := createVolumes(t, driver, 2)
	snapshot, err := driver.CreateSnapshot(t.Context(), &csipb.CreateSnapshotRequest{Name: "s", SourceVolumeId: ids[0]})
	if err != nil {
		t.Fatal(err)
	}
	group, err := driver.CreateVolumeGroupSnapshot(t.Context(), &csipb.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: ids})
	if err != nil {
		t.Fatal(err)
	}
	fake.SetLatency(time.Millisecond)
	calls := []func(ctx context.Context, id string){
		func(ctx context.Context, id string) { _, _ = driver.CreateVolume(ctx, volumeRequest("new-"+id, mib)) },
		func(ctx context.Context, id string) {
			_ = driver.WithPrecondition(csi.Unconditional).DeleteVolume(ctx, &csipb.DeleteVolumeRequest{VolumeId: id})
		},
		func(ctx context.Context, id string) { _, _ = driver.ControllerGetVolume(ctx, id) },
		func(ctx context.Context, id string) {
			_, _ = driver.ControllerExpandVolume(ctx, &csipb.ControllerExpandVolumeRequest{VolumeId: id})
		},
		func(ctx context.Context, id string) {
			_ = driver.ControllerModifyVolume(ctx, &csipb.ControllerModifyVolumeRequest{VolumeId: id})
		},
		func(ctx context.Context, id string) {
			_, _ = driver.ControllerPublishVolume(ctx, &csipb.ControllerPublishVolumeRequest{VolumeId: id})
		},
		func(ctx context.Context, id string) {
			_ = driver.WithTimeout(time.Hour).WithPrecondition(csi.Unconditional).ControllerUnpublishVolume(ctx, &csipb.ControllerUnpublishVolumeRequest{VolumeId: id})
		},
		func(ctx context.Context, id string) {
			_, _ = driver.CreateSnapshot(ctx, &csipb.CreateSnapshotRequest{Name: "of-" + id, SourceVolumeId: id})
		},
		func(ctx context.Context, _ string) {
			_ = driver.WithPrecondition(csi.Unconditional).DeleteSnapshot(ctx, &csipb.DeleteSnapshotRequest{SnapshotId: snapshot.GetSnapshotId()})
		},
		func(ctx context.Context, _ string) {
			_, _ = driver.GetSnapshot(ctx, &csipb.GetSnapshotRequest{SnapshotId: snapshot.GetSnapshotId()})
		},
		func(ctx context.Context, id string) {
			_, _ = driver.CreateVolumeGroupSnapshot(ctx, &csipb.CreateVolumeGroupSnapshotRequest{Name: "with-" + id, SourceVolumeIds: ids})
		},
		func(ctx context.Context, _ string) {
			_ = driver.WithPrecondition(csi.Unconditional).DeleteVolumeGroupSnapshot(ctx, &csipb.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: group.GetGroupSnapshotId()})
		},
		func(ctx context.Context, _ string) {
			_, _ = driver.GetVolumeGroupSnapshot(ctx, &csipb.GetVolumeGroupSnapshotRequest{GroupSnapshotId: group.GetGroupSnapshotId()})
		},
	}
	var all sync.WaitGroup
	for range 4 {
		for _, id := range ids {
			for _, call := range calls {
				all.Go(func() { call(t.Context(), id) })
			}
		}
	}
	all.Wait()
	if got := fake.Overlaps(); got != nil {
		t.Errorf("%d calls overlapped: %q", len(got), got)
	}
}

func TestCallsAboutDifferentVolumesOverlap(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	slow := fake.Block(csi.CreateVolume)
	defer slow.Release()
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { _, _ = driver.CreateVolume(t.Context(), volumeRequest("slow", mib)) })
	waitFor(t, slow.Arrived())
	if _, err := driver.CreateVolume(t.Context(), volumeRequest("fast", mib)); err != nil {
		t.Error(err)
	}
	slow.Release()
}

func TestWaitingForAnotherCallEndsWithItsContext(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	slow := fake.Block(csi.CreateVolume)
	var all sync.WaitGroup
	defer all.Wait()
	defer slow.Release()
	all.Go(func() { _, _ = driver.CreateVolume(t.Context(), volumeRequest("a", mib)) })
	waitFor(t, slow.Arrived())

	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := driver.CreateVolume(ctx, volumeRequest("a", mib))
	wantOutcome(t, err, csi.OutcomeUnknown)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if got := fake.Calls(csi.CreateVolume); got != 1 {
		t.Errorf("%d calls reached the driver", got)
	}
}

// A call that waits for longer than its timeout still has its whole timeout. A third
// call with the same timeout measures that as much time has passed.
func TestTheTimeoutOfACallStartsWhenItIsSent(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	hasty := driver.WithTimeout(200 * time.Millisecond)
	slow, measure := fake.Block(csi.CreateVolume), fake.Block(csi.ListVolumes)
	defer measure.Release()
	var all sync.WaitGroup
	defer all.Wait()
	defer slow.Release()
	all.Go(func() { _, _ = driver.CreateVolume(t.Context(), volumeRequest("a", mib)) })
	waitFor(t, slow.Arrived())

	waited := make(chan error, 1)
	all.Go(func() {
		_, err := hasty.CreateVolume(t.Context(), volumeRequest("a", mib))
		waited <- err
	})
	for _, err := range hasty.ListVolumes(t.Context(), 0) {
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("the call that measures the time: %v", err)
		}
	}
	slow.Release()
	if err := <-waited; err != nil {
		t.Errorf("waiting used up its timeout: %v", err)
	}
}

func TestACallThatTimedOutIsRepeatedUntilThereIsAResponse(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	slow := fake.Block(csi.CreateVolume)
	defer slow.Release()
	for arrived := false; !arrived; { // On a busy machine the timeout may end before the call is sent.
		_, err := driver.WithTimeout(100*time.Millisecond).CreateVolume(t.Context(), volumeRequest("a", mib))
		wantOutcome(t, err, csi.OutcomeUnknown)
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		select {
		case <-slow.Arrived():
			arrived = true
		default:
		}
	}
	slow.Release()
	eventually(t, func() error { // the volume is created although nobody waits
		if len(fake.Volumes()) == 0 {
			return errors.New("there is no volume yet")
		}
		return nil
	})
	volume, err := driver.CreateVolume(t.Context(), volumeRequest("a", mib))
	if err != nil || volume.GetVolumeId() != fake.Volumes()[0].ID || len(fake.Volumes()) != 1 {
		t.Errorf("the repetition got %v, %v; there are %v", volume, err, fake.Volumes())
	}
}

func TestEachPageHasATimeoutOfItsOwn(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	createVolumes(t, driver, 5)
	fake.SetLatency(100 * time.Millisecond)
	seen := 0
	for _, err := range driver.WithTimeout(400*time.Millisecond).ListVolumes(t.Context(), 1) {
		if err != nil {
			t.Fatalf("page %d: %v", seen+1, err)
		}
		seen++
	}
	if seen != 5 {
		t.Errorf("%d pages were read", seen)
	}
}

func TestOutcomesOfCalls(t *testing.T) {
	tests := map[string]struct {
		prepare func(*csitest.Driver)
		call    func(context.Context, *csi.Driver) error
		want    csi.Outcome
	}{
		"a driver without capacity": {
			func(fake *csitest.Driver) { fake.Reconfigure(func(o *csitest.Options) { o.Capacity = mib }) },
			func(ctx context.Context, d *csi.Driver) error {
				_, err := d.CreateVolume(ctx, volumeRequest("big", 2*mib))
				return err
			}, csi.OutOfCapacity,
		},
		"a lost response": {
			func(fake *csitest.Driver) { fake.LoseResponse(csi.CreateVolume) },
			func(ctx context.Context, d *csi.Driver) error {
				_, err := d.CreateVolume(ctx, volumeRequest("lost", mib))
				return err
			}, csi.OutcomeUnknown,
		},
		"a modification with an unknown parameter": {
			func(*csitest.Driver) {},
			func(ctx context.Context, d *csi.Driver) error {
				return d.ControllerModifyVolume(ctx, &csipb.ControllerModifyVolumeRequest{VolumeId: "volume-1", MutableParameters: map[string]string{"colour": "red"}})
			}, csi.Infeasible,
		},
		"an expansion of a volume in use": {
			func(fake *csitest.Driver) {
				fake.FailNext(csi.ControllerExpandVolume, codes.FailedPrecondition, "in use")
			},
			func(ctx context.Context, d *csi.Driver) error {
				_, err := d.ControllerExpandVolume(ctx, &csipb.ControllerExpandVolumeRequest{VolumeId: "volume-1"})
				return err
			}, csi.InUse,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			fake := csitest.New(csitest.Options{})
			driver := connect(t, fake)
			createVolumes(t, driver, 1)
			tt.prepare(fake)
			err := tt.call(t.Context(), driver)
			wantOutcome(t, fmt.Errorf("wrapped: %w", err), tt.want)
		})
	}
}

func TestAMissingTimeIsZero(t *testing.T) {
	for name, tt := range map[string]struct {
		at   *timestamppb.Timestamp
		want int64
	}{
		"left out": {nil, 0},
		"zero":     {&timestamppb.Timestamp{}, 0},
		"before":   {&timestamppb.Timestamp{Seconds: -1}, 0},
		"given":    {&timestamppb.Timestamp{Seconds: 1, Nanos: 2}, 1_000_000_002},
	} {
		if got := csi.Nanoseconds(tt.at); got != tt.want {
			t.Errorf("%s: got %d, want %d", name, got, tt.want)
		}
	}
}
