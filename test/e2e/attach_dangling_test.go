package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/test/world"
)

// publish attaches a volume at the driver behind the attacher's back.
func publish(t *testing.T, w *world.World, volume *corev1.PersistentVolume, node string) {
	t.Helper()
	ask(t, w, func(driver *csi.Driver) error {
		capability, err := csi.Capability(&volume.Spec, true, "")
		if err != nil {
			return err
		}
		_, err = driver.ControllerPublishVolume(t.Context(), &csipb.ControllerPublishVolumeRequest{
			VolumeId: volume.Spec.CSI.VolumeHandle, NodeId: node, VolumeCapability: capability,
		})
		return err
	})
}

// surveyed waits until the driver's list has been compared so often.
func surveyed(t *testing.T, w *world.World, times int) {
	t.Helper()
	before := w.Driver.Calls(csi.ListVolumes)
	world.Eventually(t, func(context.Context) error {
		if n := w.Driver.Calls(csi.ListVolumes) - before; n < times {
			return fmt.Errorf("the list was asked for %d times", n)
		}
		return nil
	})
}

// dangles waits until it is told of a volume that it dangles.
func dangles(t *testing.T, w *world.World, volume *corev1.PersistentVolume) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		events, err := w.Client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + volume.Name})
		if err == nil && !slices.ContainsFunc(events.Items, func(e corev1.Event) bool { return e.Reason == "DanglingPublication" }) {
			err = errors.New("nothing was reported")
		}
		return err
	})
}

// Drivers list every disk of the project with its users: the nodes' own disks too.
func TestWhatKubernetesNeverAttachedIsNotDetached(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.CSINode(t, "node", "id-1")
	etcd, ours := w.Volume(t, "etcd", nil), w.Volume(t, "ours", nil)
	w.DropVolume(t.Context(), t, etcd.Name)
	w.Gone(t, etcd)
	publish(t, w, etcd, "id-1")
	w.Attacher(t, "--reconcile-sync=50ms", "--detach-dangling")
	surveyed(t, w, 3)
	publish(t, w, ours, "id-1")
	published(t, w, ours.Spec.CSI.VolumeHandle)
	published(t, w, etcd.Spec.CSI.VolumeHandle, "id-1")
}

// Upstream's attacher does not keep the volume on record. If the PersistentVolume
// is gone its VolumeAttachment may be about whatever is published on its node.
func TestAnAttachmentWhoseVolumeCannotBeToldKeepsItsNodeAsItIs(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	node := w.CSINode(t, "node", "id-1")
	lost, here, there := w.Volume(t, "lost", nil), w.Volume(t, "here", nil), w.Volume(t, "there", nil)
	name := w.Attach(t, lost.Name, node)
	patch := fmt.Sprintf(`{"metadata":{"finalizers":[%q],"annotations":{"csi.alpha.kubernetes.io/node-id":"id-1"}}}`, "external-attacher/"+csi.SafeName(w.Name))
	if _, err := w.Client.StorageV1().VolumeAttachments().Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Client.StorageV1().VolumeAttachments().Patch(t.Context(), name, types.MergePatchType, []byte(`{"status":{"attached":true}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	publish(t, w, lost, "id-1")
	w.DropVolume(t.Context(), t, lost.Name)
	w.Gone(t, lost)
	publish(t, w, here, "id-1")
	publish(t, w, there, "id-2")
	w.Attacher(t, "--reconcile-sync=50ms", "--detach-dangling")
	published(t, w, there.Spec.CSI.VolumeHandle)
	dangles(t, w, here)
	published(t, w, here.Spec.CSI.VolumeHandle, "id-1")
	published(t, w, lost.Spec.CSI.VolumeHandle, "id-1")
}

// The detachment of what dangles may wait for another call about the volume. What
// was attached meanwhile stays.
func TestWhatIsAttachedWhileItsDetachmentWaitsStays(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	node, other := w.CSINode(t, "node", "id-1"), w.CSINode(t, "other", "id-2")
	volume := w.Volume(t, "data", func(v *corev1.PersistentVolume) {
		v.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	})
	w.Attacher(t, "--reconcile-sync=50ms", "--detach-dangling", "--timeout=10m")
	slow := w.Driver.Block(csi.ControllerPublishVolume) // It has the volume's turn.
	defer slow.Release()
	second := w.Attach(t, volume.Name, other)
	<-slow.Arrived()
	publish(t, w, volume, "id-1")
	dangles(t, w, volume)
	w.Attach(t, volume.Name, node)
	w.Attachment(t, world.AttachmentName(volume.Name, node), onRecord)
	slow.Release()
	w.Attached(t, second)
	w.Attached(t, world.AttachmentName(volume.Name, node))
	if n := w.Driver.Calls(csi.ControllerUnpublishVolume); n != 0 {
		t.Errorf("the driver was asked %d times to unpublish", n)
	}
	published(t, w, volume.Spec.CSI.VolumeHandle, "id-1", "id-2")
}
