package world

import (
	"context"
	"fmt"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// StartAttacher starts role csi-attacher for the world's driver; see
// [World.StartProvisioner].
func (w *World) StartAttacher(t testing.TB, args ...string) *Process {
	t.Helper()
	return startForTest(t, nil, "csi-attacher", w.AttacherArgs(args...))
}

// AttacherArgs returns the arguments with which csi-attacher uses the world's driver,
// followed by args.
func (w *World) AttacherArgs(args ...string) []string {
	return append([]string{
		"--kubeconfig=" + w.Kubeconfig, "--csi-address=" + w.Socket, "--leader-election=false", "--metrics-addr=", "--health-addr=",
	}, args...)
}

// CreateCSINode registers the driver on a node, with the id that it has there. No
// kubelet runs on the node. The name is prefixed with the namespace and returned.
func (w *World) CreateCSINode(t testing.TB, name, id string, topologyKeys ...string) string {
	t.Helper()
	name = w.Namespace + "-" + name
	create(t, w.Client.StorageV1().CSINodes(), deleteObject, &storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: w.Name, NodeID: id, TopologyKeys: topologyKeys}}},
	})
	return name
}

// CreateNode creates a Node without a machine.
func (w *World) CreateNode(t testing.TB, name string, labels map[string]string) {
	t.Helper()
	create(t, w.Client.CoreV1().Nodes(), deleteObject, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
}

// DeleteCSINode deletes a node of [World.CreateCSINode]. It succeeds if the node is
// gone already.
func (w *World) DeleteCSINode(ctx context.Context, t testing.TB, name string) {
	t.Helper()
	deleteObject(ctx, t, w.Client.StorageV1().CSINodes(), name)
}

// CreatePV creates a volume at the driver and a PersistentVolume for it. Its reclaim
// policy is Retain, so that no provisioner acts on it. Both are removed when the test
// ends.
func (w *World) CreatePV(t testing.TB, name string, change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	t.Helper()
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: w.Namespace + "-" + name},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			StorageClassName:              w.Namespace,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: w.Name, VolumeHandle: w.CreateVolumeAtDriver(t, name),
			}},
		},
	}
	if change != nil {
		change(volume)
	}
	return create(t, w.Client.CoreV1().PersistentVolumes(), forceDelete, volume)
}

// ForceDeletePV deletes a PersistentVolume in spite of its finalizers. It succeeds if
// it is gone already.
func (w *World) ForceDeletePV(ctx context.Context, t testing.TB, name string) {
	t.Helper()
	forceDelete(ctx, t, w.Client.CoreV1().PersistentVolumes(), name)
}

// CreateVolumeAtDriver creates a volume at the driver only, as another program could
// have, and returns its handle.
func (w *World) CreateVolumeAtDriver(t testing.TB, name string) (handle string) {
	t.Helper()
	volume, err := w.ConnectDriver(t).CreateVolume(t.Context(), VolumeRequest(name))
	if err != nil {
		t.Fatal(err)
	}
	return volume.GetVolumeId()
}

// VolumeRequest asks for a filesystem volume of 1 GiB that many nodes can write to.
func VolumeRequest(name string) *csipb.CreateVolumeRequest {
	return &csipb.CreateVolumeRequest{
		Name: name, CapacityRange: &csipb.CapacityRange{RequiredBytes: 1 << 30},
		VolumeCapabilities: []*csipb.VolumeCapability{{
			AccessType: &csipb.VolumeCapability_Mount{Mount: &csipb.VolumeCapability_MountVolume{}},
			AccessMode: &csipb.VolumeCapability_AccessMode{Mode: csipb.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
		}},
	}
}

// CreateAttachment requests a volume on a node, as the attach/detach controller does.
// It returns the name of the VolumeAttachment, which is deleted when the test ends.
func (w *World) CreateAttachment(t testing.TB, volume, node string) string {
	t.Helper()
	name := AttachmentName(volume, node)
	create(t, w.Client.StorageV1().VolumeAttachments(), forceDelete, &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: storagev1.VolumeAttachmentSpec{
			Attacher: w.Name, NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To(volume)},
		},
	})
	return name
}

// ForceDeleteAttachment deletes a VolumeAttachment in spite of its finalizers. It
// succeeds if it is gone already.
func (w *World) ForceDeleteAttachment(ctx context.Context, t testing.TB, name string) {
	t.Helper()
	forceDelete(ctx, t, w.Client.StorageV1().VolumeAttachments(), name)
}

// AttachmentName returns the name of the VolumeAttachment that
// [World.CreateAttachment] creates.
func AttachmentName(volume, node string) string { return "va-" + volume + "-" + node }

// DeleteAttachment deletes a VolumeAttachment without waiting until it is gone.
func (w *World) DeleteAttachment(t testing.TB, name string) {
	t.Helper()
	if err := w.Client.StorageV1().VolumeAttachments().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// WaitAttached waits until a VolumeAttachment is attached.
func (w *World) WaitAttached(t testing.TB, name string) *storagev1.VolumeAttachment {
	t.Helper()
	return w.WaitAttachment(t, name, func(a *storagev1.VolumeAttachment) error {
		if !a.Status.Attached {
			return fmt.Errorf("%s is not attached: %+v", name, a.Status)
		}
		return nil
	})
}

// WaitAttachment waits until a VolumeAttachment passes check, and returns it.
func (w *World) WaitAttachment(t testing.TB, name string, check func(*storagev1.VolumeAttachment) error) *storagev1.VolumeAttachment {
	t.Helper()
	var a *storagev1.VolumeAttachment
	Eventually(t, func(ctx context.Context) (err error) {
		if a, err = w.Client.StorageV1().VolumeAttachments().Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		return check(a)
	})
	return a
}

// WaitDetached waits until a VolumeAttachment is gone.
func (w *World) WaitDetached(t testing.TB, name string) {
	t.Helper()
	WaitDeleted(t, name, w.Client.StorageV1().VolumeAttachments().Get)
}

// PublishedNodes returns the ids of the nodes on which the driver has published a
// volume.
func (w *World) PublishedNodes(handle string) []string {
	for _, v := range w.Driver.Volumes() {
		if v.ID == handle {
			return v.Nodes
		}
	}
	return nil
}
