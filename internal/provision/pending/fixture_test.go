package pending

import (
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

const (
	uid    = "11111111-2222-3333-4444-555555555555"
	driver = "csitest.holdfast.io"
)

// operation is one for a claim whose class says as much as it can.
func operation() *Operation {
	name := "pvc-" + uid
	secret := &corev1.SecretReference{Name: "all", Namespace: "vault"}
	return &Operation{
		Request: &csipb.CreateVolumeRequest{
			Name: name, CapacityRange: &csipb.CapacityRange{RequiredBytes: 1 << 30}, Parameters: map[string]string{"pool": "ssd"},
			VolumeCapabilities: []*csipb.VolumeCapability{{
				AccessType: &csipb.VolumeCapability_Mount{Mount: &csipb.VolumeCapability_MountVolume{FsType: "xfs", MountFlags: []string{"noatime"}}},
				AccessMode: &csipb.VolumeCapability_AccessMode{Mode: csipb.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER},
			}},
		},
		Volume: &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": "storage.example.com/csi"}},
			Spec: corev1.PersistentVolumeSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: "fast",
				ClaimRef: &corev1.ObjectReference{
					APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: "team", Name: "data", UID: uid, ResourceVersion: "7",
				},
				PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete, VolumeMode: ptr.To(corev1.PersistentVolumeFilesystem),
				PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
					Driver: driver, FSType: "xfs", VolumeAttributes: map[string]string{"from": "driver"},
					NodeStageSecretRef: secret, NodePublishSecretRef: secret,
				}},
			},
		},
	}
}

// newStore returns the store of a provisioner on a node, or for all nodes, and the
// client that it uses.
func newStore(t *testing.T, node string) (*Store, client.Client) {
	t.Helper()
	c := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).Build()
	return NewStore(Options{Client: c, APIReader: c, Namespace: "ns", Driver: driver, Node: node}), c
}
