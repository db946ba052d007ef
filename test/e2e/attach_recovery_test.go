package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// isRecorded returns nil if the VolumeAttachment records its volume.
func isRecorded(a *storagev1.VolumeAttachment) error {
	if a.Annotations["attach.holdfast.io/volume-handle"] == "" {
		return errors.New("the volume is not recorded")
	}
	return nil
}

// hideNode makes the driver return NotFound for a node.
func hideNode(w *world.World, id string) {
	w.Driver.SetHooks(csitest.Hooks{Before: func(_ context.Context, _ csi.Method, req any) error {
		if r, ok := req.(interface{ GetNodeId() string }); ok && r.GetNodeId() == id {
			return status.Errorf(codes.NotFound, "there is no node %q", id)
		}
		return nil
	}})
}

// Nothing is attached to a machine that neither the driver nor the cluster knows.
func TestVolumeIsDetachedFromUnknownNode(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t, "--retry-interval-start=100ms", "--retry-interval-max=1s")
	volume := w.CreatePV(t, "data", nil)
	node := w.CreateCSINode(t, "node", "id-1")
	name := w.CreateAttachment(t, volume.Name, node)
	w.WaitAttached(t, name)
	hideNode(w, "id-1")
	w.DeleteAttachment(t, name)
	hasError := func(a *storagev1.VolumeAttachment) error {
		if e := a.Status.DetachError; e == nil || !strings.Contains(e.Message, "there is no node") {
			return fmt.Errorf("its status is %+v", a.Status)
		}
		return nil
	}
	w.WaitAttachment(t, name, hasError) // As long as the cluster knows the node.
	w.DeleteCSINode(t.Context(), t, node)
	w.CreateCSINode(t, "node", "id-2")
	w.WaitDetached(t, name)
}

func TestUnknownNodeDoesNotBlockItsSuccessor(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t, "--retry-interval-start=100ms", "--retry-interval-max=1s")
	volume := w.CreatePV(t, "data", nil)
	node := w.CreateCSINode(t, "node", "id-1")
	w.Driver.FailNext(csi.ControllerPublishVolume, codes.DeadlineExceeded, "no response")
	hideNode(w, "id-1")
	name := w.CreateAttachment(t, volume.Name, node)
	w.WaitAttachment(t, name, isRecorded)
	w.DeleteCSINode(t.Context(), t, node)
	w.CreateCSINode(t, "node", "id-2")
	w.WaitAttached(t, name)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle, "id-2")
}

// A driver may announce fewer capabilities after a restart. A recorded attachment was
// attached.
func TestRecordedAttachmentIsDetachedWithoutCapability(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	first := w.StartAttacher(t)
	volume, name := attachData(t, w)
	first.Kill()
	w.Driver.SetHooks(csitest.Hooks{After: func(_ context.Context, _ csi.Method, _, resp any, err error) (any, error) {
		if r, ok := resp.(*csipb.ControllerGetCapabilitiesResponse); ok {
			r.Capabilities = nil
		}
		return resp, err
	}})
	w.StartAttacher(t)
	detachAndWait(t, w, name)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle)
}

// If a driver does not detach any more, an event says so and the VolumeAttachment is
// deleted.
func TestAttachmentsOfDriverWithoutPublishAreRemoved(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	first := w.StartAttacher(t)
	volume, name := attachData(t, w)
	first.Kill()
	w.Driver.Reconfigure(func(o *csitest.Options) { o.Controller = []csipb.ControllerServiceCapability_RPC_Type{} })
	w.StartAttacher(t)
	detachAndWait(t, w, name)
	w.WaitEvent(t, "PersistentVolume/"+volume.Name, "", "", "does not detach volumes any more")
}

// A volume on a node belongs to the VolumeAttachment that records it: a machine may
// have two names for a while.
func TestVolumeRecordedByAnotherAttachmentStays(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t)
	volume := w.CreatePV(t, "data", nil)
	old := w.CreateAttachment(t, volume.Name, w.CreateCSINode(t, "old-name", "id-1"))
	w.WaitAttached(t, old)
	now := w.CreateAttachment(t, volume.Name, w.CreateCSINode(t, "new-name", "id-1"))
	w.WaitAttached(t, now)
	detachAndWait(t, w, old)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle, "id-1")
	detachAndWait(t, w, now)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle)
}

// A detachment that waits for another call for the volume must notice that its
// VolumeAttachment was deleted by force and created again.
func TestRecreatedAttachmentIsNotDetached(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t, "--timeout=10m")
	volume := w.CreatePV(t, "data", func(v *corev1.PersistentVolume) {
		v.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	})
	node := w.CreateCSINode(t, "node", "id-1")
	name := w.CreateAttachment(t, volume.Name, node)
	w.WaitAttached(t, name)
	slow := w.Driver.Block(csi.ControllerPublishVolume)
	defer slow.Release()
	other := w.CreateAttachment(t, volume.Name, w.CreateCSINode(t, "other", "id-2"))
	<-slow.Arrived()
	w.DeleteAttachment(t, name)
	w.ForceDeleteAttachment(t.Context(), t, name)
	w.CreateAttachment(t, volume.Name, node)
	slow.Release()
	w.WaitAttached(t, other)
	w.WaitAttached(t, name)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle, "id-1", "id-2")
}

// Somebody removes the attacher's finalizer but not the object. The attachment stays
// on record.
func TestRemovedFinalizerIsAddedAgain(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t)
	volume := w.CreatePV(t, "data", nil)
	slow := w.Driver.Block(csi.ControllerPublishVolume)
	defer slow.Release()
	name := w.CreateAttachment(t, volume.Name, w.CreateCSINode(t, "node", "id-1"))
	<-slow.Arrived()
	patch := []byte(`{"metadata":{"finalizers":null}}`)
	if _, err := w.Client.StorageV1().VolumeAttachments().Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	slow.Release()
	w.WaitAttachment(t, name, func(a *storagev1.VolumeAttachment) error {
		if !a.Status.Attached || len(a.Finalizers) == 0 {
			return fmt.Errorf("the VolumeAttachment has the finalizers %q and the status %+v", a.Finalizers, a.Status)
		}
		return nil
	})
	detachAndWait(t, w, name)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle)
}

// A PersistentVolume that is deleted while it is attached gets an event, in every
// phase and with or without a claim.
func TestEventSaysWhichAttachmentBlocksDeletion(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartAttacher(t)
	volume, name := attachData(t, w)
	if err := w.Client.CoreV1().PersistentVolumes().Delete(t.Context(), volume.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.WaitEvent(t, "PersistentVolume/"+volume.Name, "", "", name)
	detachAndWait(t, w, name)
	w.WaitPVGone(t, volume)
}
