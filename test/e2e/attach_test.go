package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// attachable is a driver whose volumes can be published on every node.
var attachable = csitest.Options{AnyNode: true, Record: true}

// waitPublished waits until the driver has published a volume on these nodes only.
func waitPublished(t *testing.T, w *world.World, handle string, nodes ...string) {
	t.Helper()
	world.Eventually(t, func(context.Context) error {
		if got := w.PublishedNodes(handle); !slices.Equal(got, nodes) {
			return fmt.Errorf("%s is published on %q, want %q", handle, got, nodes)
		}
		return nil
	})
}

func TestVolumeIsAttachedAndDetached(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t)
	node := w.CreateCSINode(t, "node", "id-1")
	volume := w.CreatePV(t, "data", nil)

	name := w.CreateAttachment(t, volume.Name, node)
	a := w.WaitAttached(t, name)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle, "id-1")
	if diff := cmp.Diff(map[string]string{"device": "/dev/" + volume.Spec.CSI.VolumeHandle}, a.Status.AttachmentMetadata); diff != "" {
		t.Error(diff)
	}
	finalizer := "external-attacher/" + csi.SafeName(w.Name)
	if !slices.Contains(a.Finalizers, finalizer) || a.Annotations["csi.alpha.kubernetes.io/node-id"] != "id-1" {
		t.Errorf("the VolumeAttachment has %q and %q", a.Finalizers, a.Annotations)
	}
	got, err := w.Client.CoreV1().PersistentVolumes().Get(t.Context(), volume.Name, metav1.GetOptions{})
	if err != nil || !slices.Contains(got.Finalizers, finalizer) {
		t.Errorf("the volume has %q, %v", got.Finalizers, err)
	}

	detachAndWait(t, w, name)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle)
	if err := w.Client.CoreV1().PersistentVolumes().Delete(t.Context(), volume.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.WaitPVGone(t, volume)
	if n, m := w.Driver.Calls(csi.ControllerPublishVolume), w.Driver.Calls(csi.ControllerUnpublishVolume); n != 1 || m != 1 {
		t.Errorf("the driver was called %d times to publish and %d times to unpublish", n, m)
	}
}

// The attacher detaches what it attached: volume, node and class may be deleted, or
// recreated under the same name.
func TestDetachNeedsOnlyTheVolumeAttachment(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t)
	createSecret(t, w, "publish")
	node := w.CreateCSINode(t, "node", "id-1")
	volume := w.CreatePV(t, "data", func(v *corev1.PersistentVolume) {
		v.Spec.CSI.ControllerPublishSecretRef = &corev1.SecretReference{Namespace: w.Namespace, Name: "publish"}
	})
	handle := volume.Spec.CSI.VolumeHandle
	name := w.CreateAttachment(t, volume.Name, node)
	w.WaitAttached(t, name)

	w.ForceDeletePV(t.Context(), t, volume.Name)
	w.WaitPVGone(t, volume)
	w.DeleteCSINode(t.Context(), t, node)
	w.CreateCSINode(t, "node", "id-of-another-machine")
	detachAndWait(t, w, name)
	waitPublished(t, w, handle)
	var secrets map[string]string
	for _, call := range w.Driver.Log() {
		if request, ok := call.Request.(*csipb.ControllerUnpublishVolumeRequest); ok {
			secrets = request.GetSecrets()
		}
	}
	if secrets["key"] != "publish" {
		t.Errorf("the driver was given the secret %v", secrets)
	}
}

// A secret that is gone must not keep a volume attached.
func TestDetachWithoutDeletedSecret(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t)
	createSecret(t, w, "publish")
	volume := w.CreatePV(t, "data", func(v *corev1.PersistentVolume) {
		v.Spec.CSI.ControllerPublishSecretRef = &corev1.SecretReference{Namespace: w.Namespace, Name: "publish"}
	})
	name := w.CreateAttachment(t, volume.Name, w.CreateCSINode(t, "node", "id-1"))
	w.WaitAttached(t, name)
	if err := w.Client.CoreV1().Secrets(w.Namespace).Delete(t.Context(), "publish", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	detachAndWait(t, w, name)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle)
}

func TestAttachAndDetachErrorsAreReported(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t, "--retry-interval-start=0.1")
	node := w.CreateCSINode(t, "node", "id-1")
	volume := w.CreatePV(t, "data", func(v *corev1.PersistentVolume) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: w.Namespace, Name: "data", UID: "made-up"}
	})
	for range 3 { // Long enough to be observed.
		w.Driver.FailNext(csi.ControllerPublishVolume, codes.ResourceExhausted, "all slots are taken")
	}
	name := w.CreateAttachment(t, volume.Name, node)
	a := w.WaitAttachment(t, name, func(a *storagev1.VolumeAttachment) error {
		if a.Status.AttachError == nil {
			return errors.New("there is no error yet")
		}
		return nil
	})
	if e := a.Status.AttachError; !strings.Contains(e.Message, "all slots are taken") || ptr.Deref(e.ErrorCode, 0) != int32(codes.ResourceExhausted) {
		t.Errorf("the status says %+v", e)
	}
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "FailedAttachVolume", "all slots are taken")
	if a = w.WaitAttached(t, name); a.Status.AttachError != nil {
		t.Errorf("it is attached, and still has the error %+v", a.Status.AttachError)
	}

	w.Driver.FailNext(csi.ControllerUnpublishVolume, codes.Internal, "the device is busy")
	w.DeleteAttachment(t, name)
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "FailedDetachVolume", "the device is busy")
	w.WaitDetached(t, name)
}

// The retry interval is longer than the test: only the new CSINode can requeue the
// attachment.
func TestDriverRegistrationRequeuesAttachments(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t, "--retry-interval-start=1h", "--retry-interval-max=1h")
	volume := w.CreatePV(t, "data", nil)
	node := w.Namespace + "-node"
	name := w.CreateAttachment(t, volume.Name, node)
	w.WaitAttachment(t, name, func(a *storagev1.VolumeAttachment) error {
		if e := a.Status.AttachError; e == nil || !strings.Contains(e.Message, node+" does not have driver "+w.Name) {
			return fmt.Errorf("the status says %+v", e)
		}
		return nil
	})
	w.CreateCSINode(t, "node", "id-1")
	w.WaitAttached(t, name)
	detachAndWait(t, w, name)
}

// The response was lost, so the volume may be on the first node.
func TestRecreatedNodeDoesNotLeaveVolumeOnOldOne(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t, "--retry-interval-start=1h", "--retry-interval-max=1h")
	volume := w.CreatePV(t, "data", nil)
	node := w.CreateCSINode(t, "node", "id-1")
	w.Driver.LoseResponse(csi.ControllerPublishVolume)
	name := w.CreateAttachment(t, volume.Name, node)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle, "id-1")
	w.WaitAttachment(t, name, func(a *storagev1.VolumeAttachment) error {
		if a.Status.AttachError == nil {
			return errors.New("there is no error yet")
		}
		return nil
	})
	w.DeleteCSINode(t.Context(), t, node)
	w.CreateCSINode(t, "node", "id-2")
	w.WaitAttached(t, name)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle, "id-2")
	detachAndWait(t, w, name)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle)
}

// Somebody removes the finalizers while the driver is attaching.
func TestAttachmentDeletedByForceIsDetached(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t)
	volume := w.CreatePV(t, "data", nil)
	slow := w.Driver.Block(csi.ControllerPublishVolume)
	name := w.CreateAttachment(t, volume.Name, w.CreateCSINode(t, "node", "id-1"))
	<-slow.Arrived()
	w.ForceDeleteAttachment(t.Context(), t, name)
	slow.Release()
	w.WaitCalls(t, csi.ControllerUnpublishVolume, 1)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle)
}

func TestSlowAttachmentIsReportedAndContinues(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t, "--volume-attachment-timeout=1s", "--timeout=10m")
	volume := w.CreatePV(t, "data", nil)
	slow := w.Driver.Block(csi.ControllerPublishVolume)
	name := w.CreateAttachment(t, volume.Name, w.CreateCSINode(t, "node", "id-1"))
	w.WaitAttachment(t, name, func(a *storagev1.VolumeAttachment) error {
		if e := a.Status.AttachError; e == nil || !strings.Contains(e.Message, "not attached within 1s") {
			return fmt.Errorf("the status says %+v", e)
		}
		return nil
	})
	slow.Release()
	w.WaitAttached(t, name)
	detachAndWait(t, w, name)
}

func TestDriverWithoutPublishNeedsNoCall(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{
		csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	}})
	w.StartAttacher(t)
	volume := w.CreatePV(t, "data", nil)
	name := w.CreateAttachment(t, volume.Name, w.Namespace+"-any")
	if a := w.WaitAttached(t, name); len(a.Finalizers) > 0 {
		t.Errorf("it got the finalizers %q", a.Finalizers)
	}
	detachAndWait(t, w, name)
}

// If the status and the driver disagree, the driver is called again. A dangling
// attachment is reported, and detached with --detach-dangling.
func TestReconcileWithListVolumes(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t, "--reconcile-sync=100ms", "--max-entries=1", "--detach-dangling")
	one, two := w.CreatePV(t, "one", nil), w.CreatePV(t, "two", nil)
	node := w.CreateCSINode(t, "node", "id-1")
	name := w.CreateAttachment(t, one.Name, node)
	w.WaitAttached(t, name)

	request := &csipb.ControllerUnpublishVolumeRequest{VolumeId: one.Spec.CSI.VolumeHandle, NodeId: "id-1"}
	must(t, w.ConnectDriver(t).WithPrecondition(csi.Unconditional).ControllerUnpublishVolume(t.Context(), request))
	waitPublished(t, w, one.Spec.CSI.VolumeHandle, "id-1")

	publishAtDriver(t, w, two, "id-1")
	waitPublished(t, w, two.Spec.CSI.VolumeHandle)
	w.WaitEvent(t, "PersistentVolume/"+two.Name, "", "DanglingPublication", "")
	detachAndWait(t, w, name)
	waitPublished(t, w, one.Spec.CSI.VolumeHandle)
}

// Upstream's attacher records the node's id and nothing else.
func TestAttachmentOfUpstreamIsDetached(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	volume := w.CreatePV(t, "data", nil)
	name := w.CreateAttachment(t, volume.Name, w.Namespace+"-gone")
	publishAtDriver(t, w, volume, "id-1")
	markAttachedByUpstream(t, w, name)
	w.DeleteAttachment(t, name)
	w.StartAttacher(t)
	w.WaitDetached(t, name)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle)
}
