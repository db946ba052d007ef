package provision

import (
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

const uid = "11111111-2222-3333-4444-555555555555"

// options are those of a provisioner whose name differs from the driver's.
func options() *Options {
	return &Options{
		Driver: "csitest.holdfast.io", Provisioner: "storage.example.com/csi", Identity: "identity", Namespace: "ns",
		VolumeNamePrefix: "pvc", NameLength: wholeUID, ImmediateTopology: true, Topology: true, Attributes: true, CrossNamespace: true,
		Workers: 1, ProtectionWorkers: 1, RetryStart: 1, RetryMax: 2,
	}
}

// claim is one that waits for us.
func claim() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: "data", Namespace: "team", UID: uid, ResourceVersion: "7",
			Annotations: map[string]string{kube.AnnStorageProvisioner: "storage.example.com/csi"},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: ptr.To("fast"),
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			VolumeMode:       ptr.To(corev1.PersistentVolumeFilesystem),
		},
	}
}

// class is the class of claim.
func class() *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: "fast"},
		Provisioner:       "storage.example.com/csi",
		Parameters:        map[string]string{"pool": "ssd"},
		ReclaimPolicy:     ptr.To(corev1.PersistentVolumeReclaimDelete),
		VolumeBindingMode: ptr.To(storagev1.VolumeBindingImmediate),
	}
}

// driverInfo returns what a driver with the given options announces.
func driverInfo(t testing.TB, o csitest.Options) csi.Info {
	t.Helper()
	driver, err := csi.Connect(t.Context(), csi.Options{Address: csitest.New(o).Serve(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer driver.Close()
	info, err := driver.WaitReady(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// readyState is the state in which a volume is created.
func readyState(t *testing.T) state {
	t.Helper()
	return state{claim: claim(), class: class(), info: driverInfo(t, csitest.Options{})}
}

func waitForFirstConsumer(s *state) {
	s.class.VolumeBindingMode = ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)
}

// withOperation adds the claim's operation.
func withOperation(t *testing.T, s *state) {
	t.Helper()
	op, err := plan(*s, options())
	if err != nil {
		t.Fatal(err)
	}
	s.operation = op
}

// withVolume adds the operation's volume.
func withVolume(s *state) {
	s.volume = complete(s.operation, &csipb.Volume{VolumeId: "vol-1", CapacityBytes: 1 << 30})
}

// snapshot is one that can be restored to claim.
func snapshot() *source.Resolved {
	return &source.Resolved{Source: source.Source{Kind: source.KindSnapshot, Namespace: "team", Name: "before"}, Snapshot: &source.Snapshot{
		Snapshot: &snapshotv1.VolumeSnapshot{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "before", UID: "s"},
			Status: &snapshotv1.VolumeSnapshotStatus{
				BoundVolumeSnapshotContentName: ptr.To("content"), ReadyToUse: ptr.To(true), RestoreSize: ptr.To(resource.MustParse("1Gi")),
			},
		},
		Content: &snapshotv1.VolumeSnapshotContent{
			ObjectMeta: metav1.ObjectMeta{Name: "content", Annotations: map[string]string{}},
			Spec: snapshotv1.VolumeSnapshotContentSpec{
				Driver:            "csitest.holdfast.io",
				VolumeSnapshotRef: corev1.ObjectReference{Namespace: "team", Name: "before", UID: "s"},
				SourceVolumeMode:  ptr.To(corev1.PersistentVolumeFilesystem),
			},
			Status: &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: ptr.To("snap-1")},
		},
	}}
}
