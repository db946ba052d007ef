package e2e

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// loseFirstThenFail loses the driver's response to the first call of a method. Later
// calls fail until the returned switch is false.
func loseFirstThenFail(w *world.World, method csi.Method, code codes.Code) *atomic.Bool {
	refuses := &atomic.Bool{}
	refuses.Store(true)
	var calls atomic.Int32
	w.Driver.SetHooks(csitest.Hooks{
		Before: func(_ context.Context, m csi.Method, _ any) error {
			if m == method && calls.Add(1) > 1 && refuses.Load() {
				return status.Error(code, "not now")
			}
			return nil
		},
		After: func(_ context.Context, m csi.Method, req, resp any, err error) (any, error) {
			if m == method && calls.Load() == 1 {
				return nil, status.Error(codes.DeadlineExceeded, "the response was lost")
			}
			if r, ok := resp.(*csipb.ControllerExpandVolumeResponse); ok { // It returns the requested size.
				r.CapacityBytes = req.(*csipb.ControllerExpandVolumeRequest).GetCapacityRange().GetRequiredBytes()
			}
			return resp, err
		},
	})
	return refuses
}

// The volume was expanded, the response was lost, and then the driver failed. A lower
// request must not lose the volume's real size.
func TestSizeOfLostResponseIsRecordedAfterLowering(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{codes.InvalidArgument, codes.OutOfRange, codes.Internal} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			w, volume := newResizable(t, csitest.Options{}, "--retry-interval-start=0.1", "--retry-interval-max=5m")
			refuses := loseFirstThenFail(w, csi.ControllerExpandVolume, code)
			w.RequestSize(t, "data", "4Gi")
			w.WaitClaim(t, "data", func(c *corev1.PersistentVolumeClaim) error {
				if !hasCondition(c, corev1.PersistentVolumeClaimControllerResizeError) {
					return fmt.Errorf("it has not failed: %+v", c.Status)
				}
				return nil
			})
			refuses.Store(false)
			w.RequestSize(t, "data", "2Gi")
			claim := w.WaitSize(t, "data", "4Gi")
			if size := claim.Status.AllocatedResources.Storage().String(); size != "4Gi" {
				t.Errorf("%s are allocated", size)
			}
			checkCapacity(t, w, volume.Name, "4Gi")
			w.DeleteClaim(t, "data")
			w.WaitNothingLeft(t)
		})
	}
}

// If the driver keeps rejecting the size, the lower request is served.
func TestExpansionThatKeepsFailingIsLowered(t *testing.T) {
	t.Parallel()
	w, volume := newResizable(t, csitest.Options{}, "--retry-interval-start=0.1")
	w.Driver.FailNext(csi.ControllerExpandVolume, codes.DeadlineExceeded, "no response")
	w.Driver.SetHooks(csitest.Hooks{Before: func(_ context.Context, _ csi.Method, req any) error {
		if r, ok := req.(*csipb.ControllerExpandVolumeRequest); ok && r.GetCapacityRange().GetRequiredBytes() > 4<<30 && w.Driver.Calls(csi.ControllerExpandVolume) > 1 {
			return status.Error(codes.OutOfRange, "the pool has 4Gi")
		}
		return nil
	}})
	w.RequestSize(t, "data", "10Gi")
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "VolumeResizeFailed", "the pool has 4Gi")
	w.RequestSize(t, "data", "2Gi")
	w.WaitSize(t, "data", "2Gi")
	checkCapacity(t, w, volume.Name, "2Gi")
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// The attributes were applied, the response was lost, and then the driver rejected
// them. A claim that goes back to the old class gets its attributes.
func TestClassOfLostResponseIsReverted(t *testing.T) {
	t.Parallel()
	w, _ := newResizable(t, csitest.Options{}, "--retry-interval-start=0.1", "--retry-interval-max=5m")
	silver := w.CreateAttributesClass(t, "silver", map[string]string{"iops": "100"})
	gold := w.CreateAttributesClass(t, "gold", map[string]string{"iops": "1000"})
	w.RequestAttributesClass(t, "data", silver)
	waitForClass(t, w, silver)
	refuses := loseFirstThenFail(w, csi.ControllerModifyVolume, codes.InvalidArgument)
	w.RequestAttributesClass(t, "data", gold)
	waitModifyStatus(t, w, corev1.PersistentVolumeClaimModifyVolumeInfeasible, gold)
	refuses.Store(false)
	w.RequestAttributesClass(t, "data", silver)
	waitForClass(t, w, silver)
	if diff := cmp.Diff(map[string]string{"iops": "100"}, w.Driver.Volumes()[0].Mutable); diff != "" {
		t.Errorf("the volume has:\n%s", diff)
	}
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// Without a class to go back to, the claim's status has the class that the volume has.
func TestFirstClassOfLostResponseIsRecorded(t *testing.T) {
	t.Parallel()
	w, _ := newResizable(t, csitest.Options{}, "--retry-interval-start=0.1", "--retry-interval-max=5m")
	gold := w.CreateAttributesClass(t, "gold", map[string]string{"iops": "1000"})
	refuses := loseFirstThenFail(w, csi.ControllerModifyVolume, codes.InvalidArgument)
	w.RequestAttributesClass(t, "data", gold)
	waitModifyStatus(t, w, corev1.PersistentVolumeClaimModifyVolumeInfeasible, gold)
	refuses.Store(false)
	w.RequestAttributesClass(t, "data", "")
	waitForClass(t, w, gold)
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}
