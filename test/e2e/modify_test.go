package e2e

import (
	"fmt"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

func TestClaimGetsAnotherAttributesClass(t *testing.T) {
	t.Parallel()
	w, volume := newResizable(t, csitest.Options{}, "--extra-modify-metadata")
	gold := w.CreateAttributesClass(t, "gold", map[string]string{"iops": "1000"})
	// The driver takes the metadata for parameters, and must know them.
	w.Driver.Reconfigure(func(o *csitest.Options) {
		o.MutableKeys = append(o.MutableKeys, "csi.storage.k8s.io/pvc/name", "csi.storage.k8s.io/pvc/namespace", "csi.storage.k8s.io/pv/name")
	})
	w.RequestAttributesClass(t, "data", gold)
	waitForClass(t, w, gold)
	got, err := w.Client.CoreV1().PersistentVolumes().Get(t.Context(), volume.Name, metav1.GetOptions{})
	if err != nil || ptr.Deref(got.Spec.VolumeAttributesClassName, "") != gold {
		t.Errorf("the volume has class %v, %v", got.Spec.VolumeAttributesClassName, err)
	}
	want := map[string]string{
		"iops": "1000", "csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": w.Namespace, "csi.storage.k8s.io/pv/name": volume.Name,
	}
	if diff := cmp.Diff(want, w.Driver.Volumes()[0].Mutable); diff != "" {
		t.Errorf("the driver has set:\n%s", diff)
	}
	w.WaitClaimEvent(t, "data", corev1.EventTypeNormal, "VolumeModifySuccessful", gold)
	checkNoWarnings(t, w)
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// Size and class may change at once; the driver gets one call after the other.
func TestClaimIsExpandedAndModifiedAtOnce(t *testing.T) {
	t.Parallel()
	w, _ := newResizable(t, csitest.Options{})
	gold := w.CreateAttributesClass(t, "gold", map[string]string{"iops": "1000"})
	patch := fmt.Sprintf(`{"spec":{"volumeAttributesClassName":%q,"resources":{"requests":{"storage":"2Gi"}}}}`, gold)
	_, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Patch(t.Context(), "data", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waitForClass(t, w, gold)
	w.WaitSize(t, "data", "2Gi")
	if overlaps := w.Driver.Overlaps(); len(overlaps) > 0 {
		t.Error(overlaps)
	}
	for method, calls := range map[csi.Method]int{csi.ControllerExpandVolume: 1, csi.ControllerModifyVolume: 1} {
		if n := w.Driver.Calls(method); n != calls {
			t.Errorf("%s was called %d times", method, n)
		}
	}
	checkNoWarnings(t, w)
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// An infeasible class is abandoned for another one at once.
func TestInfeasibleAttributesClassIsReplaced(t *testing.T) {
	t.Parallel()
	w, _ := newResizable(t, csitest.Options{}, "--retry-interval-start=5m")
	gold := w.CreateAttributesClass(t, "gold", map[string]string{"iops": "1000"})
	silver := w.CreateAttributesClass(t, "silver", map[string]string{"iops": "100"})
	bad := w.CreateAttributesClass(t, "bad", map[string]string{"no.such.parameter": "1"})

	w.RequestAttributesClass(t, "data", bad)
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "VolumeModifyFailed", "no.such.parameter")
	waitModifyStatus(t, w, corev1.PersistentVolumeClaimModifyVolumeInfeasible, bad)
	w.RequestAttributesClass(t, "data", "")
	w.WaitClaimEvent(t, "data", corev1.EventTypeNormal, "VolumeModifyCanceled", bad)
	w.WaitClaim(t, "data", checkNotModifying)

	w.RequestAttributesClass(t, "data", bad)
	waitModifyStatus(t, w, corev1.PersistentVolumeClaimModifyVolumeInfeasible, bad)
	w.RequestAttributesClass(t, "data", gold)
	waitForClass(t, w, gold)

	w.Driver.FailNext(csi.ControllerModifyVolume, codes.Internal, "half of it is done")
	w.RequestAttributesClass(t, "data", silver)
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "VolumeModifyFailed", "half of it is done")
	waitModifyStatus(t, w, corev1.PersistentVolumeClaimModifyVolumeInProgress, silver)
	before := w.Driver.Calls(csi.ControllerModifyVolume)
	w.RequestAttributesClass(t, "data", gold) // It has gold, but half of silver too.
	waitForClass(t, w, gold)
	if n := w.Driver.Calls(csi.ControllerModifyVolume) - before; n != 1 {
		t.Errorf("ControllerModifyVolume was called %d times for the old class", n)
	}
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

func TestMissingAttributesClassIsAwaited(t *testing.T) {
	t.Parallel()
	w, _ := newResizable(t, csitest.Options{})
	name := w.Namespace + "-late"
	w.RequestAttributesClass(t, "data", name)
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "VolumeModifyFailed", "does not exist")
	waitModifyStatus(t, w, corev1.PersistentVolumeClaimModifyVolumePending, name)
	w.CreateAttributesClass(t, "late", map[string]string{"iops": "1"}) // It requeues the claim.
	waitForClass(t, w, name)
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// Only the driver knows the outcome of a call whose caller died. The call is repeated,
// and only then the class is applied that the claim requests now.
func TestUnknownModificationIsCompletedFirst(t *testing.T) {
	t.Parallel()
	w, _ := newExpandable(t, csitest.Options{}, nil)
	first := w.StartResizer(t)
	gold := w.CreateAttributesClass(t, "gold", map[string]string{"iops": "1000"})
	silver := w.CreateAttributesClass(t, "silver", map[string]string{"iops": "100"})
	call := w.Driver.Block(csi.ControllerModifyVolume)
	defer call.Release()
	w.RequestAttributesClass(t, "data", gold)
	<-call.Arrived()
	first.Kill()
	w.RequestAttributesClass(t, "data", silver)
	call.Release()
	w.StartResizer(t)
	waitForClass(t, w, silver)
	var iops []string
	for _, call := range w.Driver.Log() {
		if r, ok := call.Request.(*csipb.ControllerModifyVolumeRequest); ok {
			iops = append(iops, r.GetMutableParameters()["iops"])
		}
	}
	if diff := cmp.Diff([]string{"1000", "1000", "100"}, iops); diff != "" {
		t.Errorf("the requested iops are:\n%s", diff)
	}
	checkNoWarnings(t, w)
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// waitForClass waits until claim data has a class and no modification is in progress.
func waitForClass(t *testing.T, w *world.World, class string) {
	t.Helper()
	w.WaitClaim(t, "data", func(c *corev1.PersistentVolumeClaim) error {
		if got := ptr.Deref(c.Status.CurrentVolumeAttributesClassName, ""); got != class {
			return fmt.Errorf("it has class %q: %+v", got, c.Status)
		}
		return checkNotModifying(c)
	})
}

// checkNotModifying returns an error while a claim is being modified.
func checkNotModifying(c *corev1.PersistentVolumeClaim) error {
	if c.Status.ModifyVolumeStatus != nil || hasCondition(c, corev1.PersistentVolumeClaimVolumeModifyingVolume) || hasCondition(c, corev1.PersistentVolumeClaimVolumeModifyVolumeError) {
		return fmt.Errorf("it is still being modified: %+v", c.Status)
	}
	return nil
}

// waitModifyStatus waits until the status of claim data has a modification.
func waitModifyStatus(t *testing.T, w *world.World, status corev1.PersistentVolumeClaimModifyVolumeStatus, to string) {
	t.Helper()
	w.WaitClaim(t, "data", func(c *corev1.PersistentVolumeClaim) error {
		m := c.Status.ModifyVolumeStatus
		if m == nil || m.Status != status || m.TargetVolumeAttributesClassName != to {
			return fmt.Errorf("its modification is %+v", m)
		}
		return nil
	})
}
