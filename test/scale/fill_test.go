package scale

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/test/world"
)

// everyNthIsOurs is the share of this program's objects: one in ten.
const everyNthIsOurs = 10

// createObjects creates the claims with volumes and attachments [from, to), as in a
// cluster that is in use.
func createObjects(t *testing.T, w *world.World, from, to int) {
	t.Helper()
	inParallel(to-from, func(n int) {
		if err := createObject(t.Context(), w, from+n); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
}

func createObject(ctx context.Context, w *world.World, n int) error {
	claimName, volumeName := fmt.Sprintf("there-%05d", n), fmt.Sprintf("there-%05d", n)
	claim, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Create(ctx, boundClaim(claimName, volumeName), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	volume := foreignVolume(volumeName, w.Namespace, claimName, claim.UID)
	ours := n%everyNthIsOurs == 0
	if ours {
		volume.Spec.CSI.Driver = w.Name
		volume.Annotations[kube.AnnProvisionedBy] = w.Name
		volume.Finalizers = []string{kube.VolumeFinalizer}
		volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
	}
	made, err := w.Client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if ours {
		made.Status.Phase = corev1.VolumeBound
		if _, err := w.Client.CoreV1().PersistentVolumes().UpdateStatus(ctx, made, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	attachment, err := w.Client.StorageV1().VolumeAttachments().Create(ctx, &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("there-%05d", n)},
		Spec: storagev1.VolumeAttachmentSpec{
			Attacher: volume.Spec.CSI.Driver, NodeName: "node-1", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &volumeName},
		},
	}, metav1.CreateOptions{})
	if err != nil || !ours {
		return err
	}
	attachment.Status.Attached = true
	_, err = w.Client.StorageV1().VolumeAttachments().UpdateStatus(ctx, attachment, metav1.UpdateOptions{})
	return err
}

func boundClaim(name, volume string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{"app.kubernetes.io/name": "database", "app.kubernetes.io/instance": name},
			Annotations: map[string]string{
				"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes",
				kube.AnnStorageProvisioner: "other.example.com", kube.AnnSelectedNode: "node-1",
			},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: ptr.To("other"), VolumeName: volume,
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
}

// foreignVolume is a volume of another driver for a claim; without a UID it is for any
// claim of that name.
func foreignVolume(name, namespace, claim string, uid types.UID) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{kube.AnnProvisionedBy: "other.example.com"}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			ClaimRef:                      &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: namespace, Name: claim, UID: uid},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "topology.kubernetes.io/zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"zone-a"}}},
			}}}},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: "other.example.com", VolumeHandle: name, VolumeAttributes: map[string]string{"pool": "ssd", "cluster": "main"},
			}},
		},
	}
}
