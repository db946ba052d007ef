package world

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// StartResizer starts role csi-resizer for the world's driver; see
// [World.StartProvisioner].
func (w *World) StartResizer(t testing.TB, args ...string) *Process {
	t.Helper()
	return startForTest(t, nil, "csi-resizer", w.ResizerArgs(args...))
}

// ResizerArgs returns the arguments with which csi-resizer uses the world's driver,
// followed by args.
func (w *World) ResizerArgs(args ...string) []string {
	return append([]string{"--kubeconfig=" + w.Kubeconfig, "--csi-address=" + w.Socket}, args...)
}

// WaitForFirstConsumer makes a class delay provisioning until a pod needs the volume;
// see [World.CreateClass].
func WaitForFirstConsumer(c *storagev1.StorageClass) {
	c.VolumeBindingMode = ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)
}

// Expandable makes a class allow volume expansion; see [World.CreateClass].
func Expandable(c *storagev1.StorageClass) { c.AllowVolumeExpansion = ptr.To(true) }

// CreateAttributesClass creates a VolumeAttributesClass of the driver. The name is
// prefixed with the namespace and returned. The class is deleted when the test ends.
func (w *World) CreateAttributesClass(t testing.TB, name string, parameters map[string]string) string {
	t.Helper()
	name = w.Namespace + "-" + name
	create(t, w.Client.StorageV1().VolumeAttributesClasses(), deleteObject, &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, DriverName: w.Name, Parameters: parameters,
	})
	return name
}

// RequestSize changes the size that a claim requests.
func (w *World) RequestSize(t testing.TB, claim, size string) {
	t.Helper()
	w.patchClaim(t, claim, fmt.Sprintf(`{"spec":{"resources":{"requests":{"storage":%q}}}}`, size))
}

// RequestAttributesClass changes the VolumeAttributesClass that a claim requests.
func (w *World) RequestAttributesClass(t testing.TB, claim, class string) {
	t.Helper()
	w.patchClaim(t, claim, fmt.Sprintf(`{"spec":{"volumeAttributesClassName":%q}}`, class))
}

func (w *World) patchClaim(t testing.TB, claim, patch string, subresources ...string) {
	t.Helper()
	_, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Patch(t.Context(), claim, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, subresources...)
	if err != nil {
		t.Fatal(err)
	}
}

// ExpandOnNode writes the status that a kubelet writes when it has expanded a claim's
// filesystem.
func (w *World) ExpandOnNode(t testing.TB, claim, size string) {
	t.Helper()
	w.patchClaim(t, claim, fmt.Sprintf(
		`{"status":{"capacity":{"storage":%q},"allocatedResourceStatuses":null,"conditions":null}}`, size), "status")
}

// WaitClaim waits until a claim passes check, and returns it.
func (w *World) WaitClaim(t testing.TB, name string, check func(*corev1.PersistentVolumeClaim) error) *corev1.PersistentVolumeClaim {
	t.Helper()
	var claim *corev1.PersistentVolumeClaim
	Eventually(t, func(ctx context.Context) (err error) {
		if claim, err = w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		return check(claim)
	})
	return claim
}

// WaitSize waits until a claim has a size and no expansion is in progress.
func (w *World) WaitSize(t testing.TB, name, size string) *corev1.PersistentVolumeClaim {
	t.Helper()
	return w.WaitClaim(t, name, func(c *corev1.PersistentVolumeClaim) error {
		if got := c.Status.Capacity.Storage().String(); got != size || len(c.Status.AllocatedResourceStatuses) > 0 || len(c.Status.Conditions) > 0 {
			return fmt.Errorf("claim %s has %s, want %s: %+v", name, got, size, c.Status)
		}
		return nil
	})
}
