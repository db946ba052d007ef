package e2e

import (
	"fmt"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/test/world"
)

// publishAtDriver attaches a volume at the driver only.
func publishAtDriver(t *testing.T, w *world.World, volume *corev1.PersistentVolume, node string) {
	t.Helper()
	capability, err := csi.Capability(&volume.Spec, true, "")
	must(t, err)
	_, err = w.ConnectDriver(t).ControllerPublishVolume(t.Context(), &csipb.ControllerPublishVolumeRequest{
		VolumeId: volume.Spec.CSI.VolumeHandle, NodeId: node, VolumeCapability: capability,
	})
	must(t, err)
}

// markAttachedByUpstream writes to a VolumeAttachment what upstream's external-attacher
// writes: a finalizer, the node's id and that the volume is attached.
func markAttachedByUpstream(t *testing.T, w *world.World, name string) {
	t.Helper()
	attachments := w.Client.StorageV1().VolumeAttachments()
	patch := fmt.Sprintf(`{"metadata":{"finalizers":[%q],"annotations":{"csi.alpha.kubernetes.io/node-id":"id-1"}}}`, "external-attacher/"+csi.SafeName(w.Name))
	_, err := attachments.Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	must(t, err)
	_, err = attachments.Patch(t.Context(), name, types.MergePatchType, []byte(`{"status":{"attached":true}}`), metav1.PatchOptions{}, "status")
	must(t, err)
}

// waitForListVolumes waits for so many reconciliations with the driver's ListVolumes.
func waitForListVolumes(t *testing.T, w *world.World, times int) {
	t.Helper()
	w.WaitCalls(t, csi.ListVolumes, w.Driver.Calls(csi.ListVolumes)+times)
}

// Drivers list all disks of a project with the nodes that use them, also the nodes'
// own disks.
func TestVolumesUnknownToKubernetesStayAttached(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.CreateCSINode(t, "node", "id-1")
	etcd, ours := w.CreatePV(t, "etcd", nil), w.CreatePV(t, "ours", nil)
	w.ForceDeletePV(t.Context(), t, etcd.Name)
	w.WaitPVGone(t, etcd)
	publishAtDriver(t, w, etcd, "id-1")
	w.StartAttacher(t, "--reconcile-sync=50ms", "--detach-dangling")
	waitForListVolumes(t, w, 3)
	publishAtDriver(t, w, ours, "id-1")
	waitPublished(t, w, ours.Spec.CSI.VolumeHandle)
	waitPublished(t, w, etcd.Spec.CSI.VolumeHandle, "id-1")
}

// Upstream's attacher does not record the volume. If the PersistentVolume is gone, its
// VolumeAttachment may be for any volume that is published on its node.
func TestAttachmentOfUnknownVolumeKeepsItsNode(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	node := w.CreateCSINode(t, "node", "id-1")
	lost, here, there := w.CreatePV(t, "lost", nil), w.CreatePV(t, "here", nil), w.CreatePV(t, "there", nil)
	name := w.CreateAttachment(t, lost.Name, node)
	markAttachedByUpstream(t, w, name)
	publishAtDriver(t, w, lost, "id-1")
	w.ForceDeletePV(t.Context(), t, lost.Name)
	w.WaitPVGone(t, lost)
	publishAtDriver(t, w, here, "id-1")
	publishAtDriver(t, w, there, "id-2")
	w.StartAttacher(t, "--reconcile-sync=50ms", "--detach-dangling")
	waitPublished(t, w, there.Spec.CSI.VolumeHandle)
	w.WaitEvent(t, "PersistentVolume/"+here.Name, "", "DanglingPublication", "")
	waitPublished(t, w, here.Spec.CSI.VolumeHandle, "id-1")
	waitPublished(t, w, lost.Spec.CSI.VolumeHandle, "id-1")
}

// The detachment of a dangling attachment may wait for another call for the volume. If
// the volume is attached to the node meanwhile, it stays there.
func TestDanglingAttachmentThatIsRequestedAgainStays(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	node, other := w.CreateCSINode(t, "node", "id-1"), w.CreateCSINode(t, "other", "id-2")
	volume := w.CreatePV(t, "data", func(v *corev1.PersistentVolume) {
		v.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	})
	w.StartAttacher(t, "--reconcile-sync=50ms", "--detach-dangling", "--timeout=10m")
	slow := w.Driver.Block(csi.ControllerPublishVolume) // It holds the volume's lock.
	defer slow.Release()
	second := w.CreateAttachment(t, volume.Name, other)
	<-slow.Arrived()
	publishAtDriver(t, w, volume, "id-1")
	w.WaitEvent(t, "PersistentVolume/"+volume.Name, "", "DanglingPublication", "")
	w.CreateAttachment(t, volume.Name, node)
	w.WaitAttachment(t, world.AttachmentName(volume.Name, node), isRecorded)
	slow.Release()
	w.WaitAttached(t, second)
	w.WaitAttached(t, world.AttachmentName(volume.Name, node))
	if n := w.Driver.Calls(csi.ControllerUnpublishVolume); n != 0 {
		t.Errorf("ControllerUnpublishVolume was called %d times", n)
	}
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle, "id-1", "id-2")
}
