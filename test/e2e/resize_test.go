package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// newResizable returns a world with a bound claim, data, of 1 GiB, and a resizer with
// args.
func newResizable(t *testing.T, o csitest.Options, args ...string) (*world.World, *corev1.PersistentVolume) {
	t.Helper()
	w, volume := newExpandable(t, o, nil)
	w.StartResizer(t, args...)
	return w, volume
}

// newExpandable returns a world with a bound claim, data, of 1 GiB, whose class allows
// expansion. It has no resizer.
func newExpandable(t *testing.T, o csitest.Options, parameters map[string]string) (*world.World, *corev1.PersistentVolume) {
	t.Helper()
	o.Record = true
	w := world.New(t, o)
	w.StartProvisioner(t)
	w.CreateClass(t, func(c *storagev1.StorageClass) {
		world.Expandable(c)
		c.Parameters = parameters
	})
	w.CreateClaim(t, "data", nil)
	return w, w.WaitBound(t, "data")
}

func TestClaimIsExpanded(t *testing.T) {
	t.Parallel()
	w, volume := newResizable(t, csitest.Options{})
	w.RequestSize(t, "data", "3Gi")
	claim := w.WaitSize(t, "data", "3Gi")
	if claim.Annotations["volume.kubernetes.io/node-expansion-not-required"] != "true" {
		t.Errorf("the claim lacks the annotation for kubelets: %v", claim.Annotations)
	}
	w.WaitClaimEvent(t, "data", corev1.EventTypeNormal, "VolumeResizeSuccessful", "")
	checkCapacity(t, w, volume.Name, "3Gi")
	if diff := cmp.Diff([]int64{3 << 30}, requestedSizes(w)); diff != "" {
		t.Errorf("the requested sizes are:\n%s", diff)
	}
	if size := w.Driver.Volumes()[0].Bytes; size != 3<<30 {
		t.Errorf("the volume has %d bytes at the driver", size)
	}
	checkNoWarnings(t, w)
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

func TestNodeCompletesExpansion(t *testing.T) {
	t.Parallel()
	w, volume := newResizable(t, csitest.Options{NodeExpansion: true})
	w.RequestSize(t, "data", "2Gi")
	w.WaitClaim(t, "data", checkNodeResizePending)
	w.WaitClaimEvent(t, "data", corev1.EventTypeNormal, "FileSystemResizeRequired", "")
	if noted := checkCapacity(t, w, volume.Name, "2Gi").Annotations["volume.alpha.kubernetes.io/pre-resize-capacity"]; noted != "1Gi" {
		t.Errorf("the recorded old size is %q", noted)
	}
	w.RequestSize(t, "data", "3Gi") // The next size is requested only when the node is done.
	w.ExpandOnNode(t, "data", "2Gi")
	w.WaitClaim(t, "data", func(c *corev1.PersistentVolumeClaim) error {
		if size := c.Status.AllocatedResources.Storage().String(); size != "3Gi" {
			return fmt.Errorf("%s are allocated", size)
		}
		return checkNodeResizePending(c)
	})
	if diff := cmp.Diff([]int64{2 << 30, 3 << 30}, requestedSizes(w)); diff != "" {
		t.Errorf("the requested sizes are:\n%s", diff)
	}
	w.ExpandOnNode(t, "data", "3Gi")
	w.WaitSize(t, "data", "3Gi")
	w.WaitPV(t, volume.Name, func(v *corev1.PersistentVolume) error {
		if v.Annotations["volume.alpha.kubernetes.io/pre-resize-capacity"] != "" {
			return errors.New("the volume still records the old size")
		}
		return nil
	})
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

func TestNodeOnlyDriverIsNotCalledToExpand(t *testing.T) {
	t.Parallel()
	w, volume := newResizable(t, csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{
		csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	}})
	w.RequestSize(t, "data", "2Gi")
	w.WaitClaim(t, "data", checkNodeResizePending)
	checkCapacity(t, w, volume.Name, "2Gi")
	w.ExpandOnNode(t, "data", "2Gi")
	w.WaitSize(t, "data", "2Gi")
	if n := w.Driver.Calls(csi.ControllerExpandVolume); n != 0 {
		t.Errorf("it was called %d times", n)
	}
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// An expansion that fails is not retried all the time, and a smaller request is served
// at once.
func TestFailedExpansionCanBeLowered(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		code   codes.Code
		status corev1.ClaimResourceStatus
	}{
		"infeasible": {codes.OutOfRange, corev1.PersistentVolumeClaimControllerResizeInfeasible},
		"failed":     {codes.Internal, corev1.PersistentVolumeClaimControllerResizeInProgress},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, volume := newResizable(t, csitest.Options{}, "--retry-interval-start=5m")
			w.Driver.SetHooks(csitest.Hooks{Before: func(_ context.Context, _ csi.Method, req any) error {
				if r, ok := req.(*csipb.ControllerExpandVolumeRequest); ok && r.GetCapacityRange().GetRequiredBytes() > 4<<30 {
					return status.Error(tt.code, "the pool has 4Gi")
				}
				return nil
			}})
			w.RequestSize(t, "data", "10Gi")
			w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "VolumeResizeFailed", "the pool has 4Gi")
			claim := w.WaitClaim(t, "data", func(c *corev1.PersistentVolumeClaim) error {
				if got := c.Status.AllocatedResourceStatuses[corev1.ResourceStorage]; got != tt.status || !hasCondition(c, corev1.PersistentVolumeClaimControllerResizeError) {
					return fmt.Errorf("it is %s with conditions %+v", got, c.Status.Conditions)
				}
				return nil
			})
			if size := claim.Status.AllocatedResources.Storage().String(); size != "10Gi" {
				t.Errorf("%s are allocated", size)
			}
			// Another claim, expanded after it, shows that it is not retried.
			w.CreateClaim(t, "other", nil)
			w.WaitBound(t, "other")
			w.RequestSize(t, "other", "3Gi")
			w.WaitSize(t, "other", "3Gi")
			w.DeleteClaim(t, "other")
			w.RequestSize(t, "data", "2Gi")
			w.WaitSize(t, "data", "2Gi")
			checkCapacity(t, w, volume.Name, "2Gi")
			if diff := cmp.Diff([]int64{10 << 30, 3 << 30, 2 << 30}, requestedSizes(w)); diff != "" {
				t.Errorf("the requested sizes are:\n%s", diff)
			}
			w.DeleteClaim(t, "data")
			w.WaitNothingLeft(t)
		})
	}
}

// An infeasible expansion is retried after the longest retry interval.
func TestInfeasibleExpansionIsRetriedLater(t *testing.T) {
	t.Parallel()
	w, _ := newResizable(t, csitest.Options{}, "--retry-interval-max=2s")
	w.Driver.FailNext(csi.ControllerExpandVolume, codes.OutOfRange, "the pool has 1Gi")
	w.RequestSize(t, "data", "2Gi")
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "VolumeResizeFailed", "the pool has 1Gi")
	w.WaitSize(t, "data", "2Gi")
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// Only the driver knows the outcome of a call whose caller died. Until the outcome is
// known no other size is requested, not even a smaller one.
func TestUnknownExpansionIsCompletedFirst(t *testing.T) {
	t.Parallel()
	w, volume := newExpandable(t, csitest.Options{}, nil)
	first := w.StartResizer(t)
	call := w.Driver.Block(csi.ControllerExpandVolume)
	defer call.Release()
	w.RequestSize(t, "data", "4Gi")
	<-call.Arrived()
	first.Kill()
	w.RequestSize(t, "data", "2Gi")
	call.Release()
	w.StartResizer(t)
	w.WaitSize(t, "data", "4Gi")
	checkCapacity(t, w, volume.Name, "4Gi")
	for _, size := range requestedSizes(w) {
		if size != 4<<30 {
			t.Errorf("the driver got a request for %d bytes", size)
		}
	}
	checkNoWarnings(t, w)
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// A lost response is no failure: the retry finds that everything is done.
func TestLostExpansionResponseIsNoFailure(t *testing.T) {
	t.Parallel()
	w, _ := newResizable(t, csitest.Options{}, "--retry-interval-start=0.1")
	w.Driver.LoseResponse(csi.ControllerExpandVolume)
	w.RequestSize(t, "data", "2Gi")
	w.WaitSize(t, "data", "2Gi")
	w.WaitClaimEvent(t, "data", corev1.EventTypeNormal, "VolumeResizeSuccessful", "")
	checkNoWarnings(t, w)
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// An edit of the claim while its volume is being expanded does not make the expansion
// fail.
func TestEditDuringExpansionDoesNotFailIt(t *testing.T) {
	t.Parallel()
	w, _ := newResizable(t, csitest.Options{})
	call := w.Driver.Block(csi.ControllerExpandVolume)
	defer call.Release()
	w.RequestSize(t, "data", "2Gi")
	<-call.Arrived()
	w.RequestSize(t, "data", "3Gi")
	call.Release()
	w.WaitSize(t, "data", "3Gi")
	if diff := cmp.Diff([]int64{2 << 30, 3 << 30}, requestedSizes(w)); diff != "" {
		t.Errorf("the requested sizes are:\n%s", diff)
	}
	checkNoWarnings(t, w)
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// If the driver does not expand a volume in use, the volume is expanded as soon as the
// pod that uses it has ended.
func TestVolumeInUseIsExpandedLater(t *testing.T) {
	t.Parallel()
	w, _ := newResizable(t, csitest.Options{})
	var used atomic.Bool
	used.Store(true)
	w.Driver.SetHooks(csitest.Hooks{Before: func(_ context.Context, m csi.Method, _ any) error {
		if m == csi.ControllerExpandVolume && used.Load() {
			return status.Error(codes.FailedPrecondition, "the volume is in use")
		}
		return nil
	}})
	pods := w.Client.CoreV1().Pods(w.Namespace)
	_, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "user"},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "main", Image: cluster.BusyboxImage}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
			}}},
			NodeSelector: map[string]string{"no": "such-node"},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.RequestSize(t, "data", "2Gi")
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "VolumeResizeFailed", "in use by pod user")
	used.Store(false)
	if err := pods.Delete(t.Context(), "user", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.WaitSize(t, "data", "2Gi") // No retry is due for five minutes.
	if n := w.Driver.Calls(csi.ControllerExpandVolume); n != 2 {
		t.Errorf("the driver was called %d times", n)
	}
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// An impossible size in a response is reported and not written.
func TestInvalidCapacityInResponseIsNotWritten(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int64{"no size": 0, "less than the required": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, volume := newResizable(t, csitest.Options{}, "--retry-interval-start=0.1", "--retry-interval-max=1s")
			w.Driver.SetHooks(csitest.Hooks{After: func(_ context.Context, _ csi.Method, _, resp any, err error) (any, error) {
				if r, ok := resp.(*csipb.ControllerExpandVolumeResponse); ok {
					r.CapacityBytes = size
				}
				return resp, err
			}})
			w.RequestSize(t, "data", "2Gi")
			w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "VolumeResizeFailed", name)
			claim := w.WaitClaim(t, "data", func(*corev1.PersistentVolumeClaim) error { return nil })
			if size := claim.Status.Capacity.Storage().String(); size != "1Gi" {
				t.Errorf("the claim has %s", size)
			}
			checkCapacity(t, w, volume.Name, "1Gi")
			w.Driver.SetHooks(csitest.Hooks{})
			w.WaitSize(t, "data", "2Gi")
			w.DeleteClaim(t, "data")
			w.WaitNothingLeft(t)
		})
	}
}

func TestMissingExpandSecretIsRetried(t *testing.T) {
	t.Parallel()
	w, _ := newExpandable(t, csitest.Options{}, map[string]string{
		"csi.storage.k8s.io/controller-expand-secret-name": "key", "csi.storage.k8s.io/controller-expand-secret-namespace": "${pvc.namespace}",
	})
	w.StartResizer(t, "--retry-interval-max=1s")
	w.RequestSize(t, "data", "2Gi")
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "VolumeResizeFailed", w.Namespace+"/key")
	_, err := w.Client.CoreV1().Secrets(w.Namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "key"}, StringData: map[string]string{"token": "sesame"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.WaitSize(t, "data", "2Gi")
	for _, call := range w.Driver.Log() {
		if r, ok := call.Request.(*csipb.ControllerExpandVolumeRequest); ok && r.GetSecrets()["token"] != "sesame" {
			t.Errorf("the driver was given %v", r.GetSecrets())
		}
	}
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

func TestDriverWithoutExpandOrModifyIsAnError(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{
		Controller: []csipb.ControllerServiceCapability_RPC_Type{csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME},
		Node:       []csipb.NodeServiceCapability_RPC_Type{},
	})
	p := w.StartResizer(t)
	<-p.Done()
	if p.Err() == nil || !strings.Contains(p.Log(), "neither EXPAND_VOLUME") {
		t.Errorf("it ended with %v and logged: %s", p.Err(), p.Log())
	}
}

func hasCondition(claim *corev1.PersistentVolumeClaim, condition corev1.PersistentVolumeClaimConditionType) bool {
	for _, c := range claim.Status.Conditions {
		if c.Type == condition && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

// checkNodeResizePending returns nil if the node must still expand the claim's
// filesystem.
func checkNodeResizePending(c *corev1.PersistentVolumeClaim) error {
	if got := c.Status.AllocatedResourceStatuses[corev1.ResourceStorage]; got != corev1.PersistentVolumeClaimNodeResizePending || !hasCondition(c, corev1.PersistentVolumeClaimFileSystemResizePending) {
		return fmt.Errorf("it is %q with conditions %+v", got, c.Status.Conditions)
	}
	return nil
}

// checkCapacity checks and returns a PersistentVolume's capacity.
func checkCapacity(t *testing.T, w *world.World, volume, size string) *corev1.PersistentVolume {
	t.Helper()
	v, err := w.Client.CoreV1().PersistentVolumes().Get(t.Context(), volume, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := v.Spec.Capacity.Storage().String(); got != size {
		t.Errorf("volume %s has capacity %s, want %s", volume, got, size)
	}
	return v
}

// requestedSizes returns the sizes of all ControllerExpandVolume requests.
func requestedSizes(w *world.World) []int64 {
	var all []int64
	for _, call := range w.Driver.Log() {
		if r, ok := call.Request.(*csipb.ControllerExpandVolumeRequest); ok {
			all = append(all, r.GetCapacityRange().GetRequiredBytes())
		}
	}
	return all
}

// checkNoWarnings checks that the claim has no warnings of the resizer. Others may
// emit warnings: the PV controller does when it sees the class after the claim.
func checkNoWarnings(t *testing.T, w *world.World) {
	t.Helper()
	events, err := w.Client.CoreV1().Events(w.Namespace).List(t.Context(), metav1.ListOptions{
		FieldSelector: "type=Warning,involvedObject.kind=PersistentVolumeClaim,involvedObject.name=data",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		if e.Reason == "VolumeResizeFailed" || e.Reason == "VolumeModifyFailed" {
			t.Errorf("the claim has the event %s: %s", e.Reason, e.Message)
		}
	}
}
