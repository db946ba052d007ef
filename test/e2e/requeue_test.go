package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// waitProvisioningFailed waits for a ProvisioningFailed event with part.
func waitProvisioningFailed(t *testing.T, w *world.World, claim, part string) {
	t.Helper()
	w.WaitClaimEvent(t, claim, corev1.EventTypeWarning, "ProvisioningFailed", part)
}

func TestReadySnapshotRequeuesItsClaims(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := w.SnapshotClient(t)
	w.StartProvisioner(t, noRetries...)
	w.CreateClass(t, nil)
	w.CreateClaim(t, "source", nil)
	snapshot := createReadySnapshot(t, w, api, w.WaitBound(t, "source"), "late")
	ready := func(is bool) {
		snapshot.Status.ReadyToUse = ptr.To(is)
		must(t, api.Status().Update(t.Context(), snapshot))
	}
	ready(false)
	w.CreateClaim(t, "restored", withSource("VolumeSnapshot", "late"))
	waitProvisioningFailed(t, w, "restored", "is not ready to use yet")
	ready(true)
	w.WaitBound(t, "restored")

	w.CreateClaim(t, "early", withSource("VolumeSnapshot", "later"))
	waitProvisioningFailed(t, w, "early", "does not exist")
	volume := w.WaitBound(t, "source")
	createReadySnapshot(t, w, api, volume, "later")
	w.WaitBound(t, "early")
	for _, name := range []string{"source", "restored", "early"} {
		w.DeleteClaim(t, name)
	}
	w.WaitNothingLeft(t)
}

func TestBoundSourceRequeuesItsClones(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.StartProvisioner(t, noRetries...)
	w.CreateClass(t, nil)
	w.CreateClaim(t, "clone", withSource("PersistentVolumeClaim", "source"))
	waitProvisioningFailed(t, w, "clone", "PersistentVolumeClaim "+w.Namespace+"/source: does not exist")
	w.CreateClaim(t, "source", nil)
	w.WaitBound(t, "clone")
	w.DeleteClaim(t, "clone")
	w.DeleteClaim(t, "source")
	w.WaitNothingLeft(t)
}

func TestAttributesClassRequeuesItsClaims(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.StartProvisioner(t, noRetries...)
	w.CreateClass(t, nil)
	w.CreateClaim(t, "data", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = &w.Namespace })
	waitProvisioningFailed(t, w, "data", "does not exist")
	_, err := w.Client.StorageV1().VolumeAttributesClasses().Create(t.Context(), &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}, DriverName: w.Name, Parameters: map[string]string{"iops": "9000"},
	}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		must(t, w.Client.StorageV1().VolumeAttributesClasses().Delete(context.Background(), w.Namespace, metav1.DeleteOptions{}))
	})
	volume := w.WaitBound(t, "data")
	if got := ptr.Deref(volume.Spec.VolumeAttributesClassName, ""); got != w.Namespace {
		t.Errorf("the volume's attributes class is %q", got)
	}
	if got := w.Driver.Volumes()[0].Mutable["iops"]; got != "9000" {
		text, _ := json.Marshal(w.Driver.Volumes()[0].Mutable)
		t.Errorf("the driver's volume has %s", text)
	}
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// A node can be selected before the driver on it is registered, and before it has the
// labels of the driver's topology.
func TestCompletedNodeRequeuesItsClaims(t *testing.T) {
	t.Parallel()
	w := newCapacityWorld(t)
	w.StartProvisioner(t, append(noRetries, "--strict-topology")...)
	w.createDelayedClass(t, "")
	w.CreateClass(t, func(c *storagev1.StorageClass) { c.Name += "-now" })
	change := func(resource, zone, patch string) {
		t.Helper()
		localWorld{w.World}.kubectl(t, "patch", resource, w.nodeName(zone), "--type=merge", "-p", patch)
	}
	label := func(value string) string { return fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, zoneKey, value) }

	change("node", "a", label("null"))
	w.createClaimInZone(t, "unlabelled", "a", "1Gi")
	waitProvisioningFailed(t, w.World, "unlabelled", w.nodeName("a"))
	change("node", "a", label(`"a"`))
	w.WaitBound(t, "unlabelled")

	change("csinode", "b", `{"spec":{"drivers":[]}}`)
	w.createClaimInZone(t, "unregistered", "b", "1Gi")
	waitProvisioningFailed(t, w.World, "unregistered", w.nodeName("b"))
	change("csinode", "b", fmt.Sprintf(`{"spec":{"drivers":[{"name":%q,"nodeID":"b","topologyKeys":[%q]}]}}`, w.Name, zoneKey))
	w.WaitBound(t, "unregistered")

	for _, zone := range []string{"a", "b"} {
		change("csinode", zone, `{"spec":{"drivers":[]}}`)
	}
	w.CreateClaim(t, "nowhere", func(c *corev1.PersistentVolumeClaim) { *c.Spec.StorageClassName += "-now" })
	waitProvisioningFailed(t, w.World, "nowhere", "")
	change("csinode", "a", fmt.Sprintf(`{"spec":{"drivers":[{"name":%q,"nodeID":"a","topologyKeys":[%q]}]}}`, w.Name, zoneKey))
	w.WaitBound(t, "nowhere")
	for _, name := range []string{"unlabelled", "unregistered", "nowhere"} {
		w.DeleteClaim(t, name)
	}
	w.WaitNothingLeft(t)
}

// withProvisionerSecret names a secret of the test's namespace for CreateVolume.
func withProvisionerSecret(w *world.World) func(*storagev1.StorageClass) {
	return func(c *storagev1.StorageClass) {
		c.Parameters = map[string]string{
			"csi.storage.k8s.io/provisioner-secret-name": "key", "csi.storage.k8s.io/provisioner-secret-namespace": w.Namespace,
		}
	}
}

// A claim whose secret never existed leaves nothing behind; one whose secret is
// created is served.
func TestMissingSecretIsReportedAndRetried(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.StartProvisioner(t)
	w.CreateClass(t, withProvisionerSecret(w))
	for _, name := range []string{"kept", "dropped"} {
		w.CreateClaim(t, name, nil)
		waitProvisioningFailed(t, w, name, `secrets "key" not found`)
	}
	w.DeleteClaim(t, "dropped")
	w.WaitNothingLeft(t)
	createSecret(t, w, "key")
	w.WaitBound(t, "kept")
	w.DeleteClaim(t, "kept")
	w.WaitNothingLeft(t)
}

// Without its secret the outcome of a deleted claim's CreateVolume cannot be resolved.
// An event on the record says so, and what to do.
func TestPendingOperationWithoutSecretSaysWhatToDo(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	first := w.StartProvisioner(t)
	w.CreateClass(t, withProvisionerSecret(w))
	createSecret(t, w, "key")
	working := w.Driver.Block(csi.CreateVolume)
	claim := w.CreateClaim(t, "data", nil)
	<-working.Arrived()
	first.Kill()
	working.Release()
	w.DeleteClaim(t, "data")
	must(t, w.Client.CoreV1().Secrets(w.Namespace).Delete(t.Context(), "key", metav1.DeleteOptions{}))
	w.StartProvisioner(t)
	w.WaitEvent(t, "Lease/provision-"+string(claim.UID), corev1.EventTypeWarning, "", "create the secret again")
	createSecret(t, w, "key")
	w.WaitNothingLeft(t)
}
