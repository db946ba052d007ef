package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// patient are the arguments with which no retry is due while a test runs: a
// claim that failed once is only served if something wakes it up.
var patient = []string{"--retry-interval-start=1h", "--retry-interval-max=1h"}

func failed(t *testing.T, w *world.World, claim, part string) {
	t.Helper()
	w.Told(t, claim, corev1.EventTypeWarning, "ProvisioningFailed", part)
}

func TestASnapshotThatGetsReadyWakesItsClaims(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := w.Snapshots(t)
	w.Provisioner(t, patient...)
	w.Class(t, nil)
	w.Claim(t, "source", nil)
	snapshot := cut(t, w, api, w.Bound(t, "source"), "late")
	ready := func(is bool) {
		snapshot.Status.ReadyToUse = ptr.To(is)
		must(t, api.Status().Update(t.Context(), snapshot))
	}
	ready(false)
	w.Claim(t, "restored", from("VolumeSnapshot", "late"))
	failed(t, w, "restored", "is not ready to use yet")
	ready(true)
	w.Bound(t, "restored")

	w.Claim(t, "early", from("VolumeSnapshot", "later"))
	failed(t, w, "early", "does not exist")
	volume := w.Bound(t, "source")
	cut(t, w, api, volume, "later")
	w.Bound(t, "early")
	for _, name := range []string{"source", "restored", "early"} {
		w.DropClaim(t, name)
	}
	w.NothingLeft(t)
}

func TestASourceThatIsBoundWakesItsClones(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.Provisioner(t, patient...)
	w.Class(t, nil)
	w.Claim(t, "clone", from("PersistentVolumeClaim", "source"))
	failed(t, w, "clone", "PersistentVolumeClaim "+w.Namespace+"/source: does not exist")
	w.Claim(t, "source", nil)
	w.Bound(t, "clone")
	w.DropClaim(t, "clone")
	w.DropClaim(t, "source")
	w.NothingLeft(t)
}

func TestAnAttributesClassWakesItsClaimsAndReachesTheDriver(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.Provisioner(t, patient...)
	w.Class(t, nil)
	w.Claim(t, "data", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = &w.Namespace })
	failed(t, w, "data", "does not exist")
	_, err := w.Client.StorageV1().VolumeAttributesClasses().Create(t.Context(), &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}, DriverName: w.Name, Parameters: map[string]string{"iops": "9000"},
	}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		must(t, w.Client.StorageV1().VolumeAttributesClasses().Delete(context.Background(), w.Namespace, metav1.DeleteOptions{}))
	})
	volume := w.Bound(t, "data")
	if got := ptr.Deref(volume.Spec.VolumeAttributesClassName, ""); got != w.Namespace {
		t.Errorf("the volume's attributes class is %q", got)
	}
	if got := w.Driver.Volumes()[0].Mutable["iops"]; got != "9000" {
		text, _ := json.Marshal(w.Driver.Volumes()[0].Mutable)
		t.Errorf("the driver's volume has %s", text)
	}
	w.DropClaim(t, "data")
	w.NothingLeft(t)
}

// A node can be selected before the driver on it is registered, and before it
// has the labels that the driver's topology needs.
func TestANodeThatGetsWhatItLacksWakesItsClaims(t *testing.T) {
	t.Parallel()
	w := newCapacityWorld(t)
	w.Provisioner(t, append(patient, "--strict-topology")...)
	w.late(t, "")
	w.Class(t, func(c *storagev1.StorageClass) { c.Name += "-now" })
	change := func(resource, zone, patch string) {
		t.Helper()
		localWorld{w.World}.kubectl(t, "patch", resource, w.nodeIn(zone), "--type=merge", "-p", patch)
	}
	label := func(value string) string { return fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, zoneKey, value) }

	change("node", "a", label("null"))
	w.near(t, "unlabelled", "a", "1Gi")
	failed(t, w.World, "unlabelled", w.nodeIn("a"))
	change("node", "a", label(`"a"`))
	w.Bound(t, "unlabelled")

	change("csinode", "b", `{"spec":{"drivers":[]}}`)
	w.near(t, "unregistered", "b", "1Gi")
	failed(t, w.World, "unregistered", w.nodeIn("b"))
	change("csinode", "b", fmt.Sprintf(`{"spec":{"drivers":[{"name":%q,"nodeID":"b","topologyKeys":[%q]}]}}`, w.Name, zoneKey))
	w.Bound(t, "unregistered")

	for _, zone := range []string{"a", "b"} {
		change("csinode", zone, `{"spec":{"drivers":[]}}`)
	}
	w.Claim(t, "nowhere", func(c *corev1.PersistentVolumeClaim) { *c.Spec.StorageClassName += "-now" })
	failed(t, w.World, "nowhere", "")
	change("csinode", "a", fmt.Sprintf(`{"spec":{"drivers":[{"name":%q,"nodeID":"a","topologyKeys":[%q]}]}}`, w.Name, zoneKey))
	w.Bound(t, "nowhere")
	for _, name := range []string{"unlabelled", "unregistered", "nowhere"} {
		w.DropClaim(t, name)
	}
	w.NothingLeft(t)
}

// secretClass names a secret of the test's namespace for CreateVolume.
func secretClass(w *world.World) func(*storagev1.StorageClass) {
	return func(c *storagev1.StorageClass) {
		c.Parameters = map[string]string{
			"csi.storage.k8s.io/provisioner-secret-name": "key", "csi.storage.k8s.io/provisioner-secret-namespace": w.Namespace,
		}
	}
}

// A claim whose secret never was there leaves nothing behind; one whose secret
// comes is served.
func TestAMissingSecretIsToldAndLookedForAgain(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.Provisioner(t)
	w.Class(t, secretClass(w))
	for _, name := range []string{"kept", "dropped"} {
		w.Claim(t, name, nil)
		failed(t, w, name, `secrets "key" not found`)
	}
	w.DropClaim(t, "dropped")
	w.NothingLeft(t)
	secret(t, w, "key")
	w.Bound(t, "kept")
	w.DropClaim(t, "kept")
	w.NothingLeft(t)
}

// What may have been made for a claim that is gone cannot be found out without
// the secret. The record of it says so to whoever looks, and what to do.
func TestAnIntentWithoutClaimAndSecretTellsWhatToDo(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	first := w.Provisioner(t)
	w.Class(t, secretClass(w))
	secret(t, w, "key")
	working := w.Driver.Block(csi.CreateVolume)
	claim := w.Claim(t, "data", nil)
	<-working.Arrived()
	first.Kill()
	working.Release()
	w.DropClaim(t, "data")
	must(t, w.Client.CoreV1().Secrets(w.Namespace).Delete(t.Context(), "key", metav1.DeleteOptions{}))
	w.Provisioner(t)
	world.Eventually(t, func(ctx context.Context) error {
		events, err := w.Client.CoreV1().Events(w.Namespace).List(ctx, metav1.ListOptions{
			FieldSelector: "involvedObject.kind=Lease,involvedObject.name=provision-" + string(claim.UID),
		})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Type == corev1.EventTypeWarning && strings.Contains(e.Message, "make the secret again") {
				return nil
			}
		}
		return errors.New("nothing is told on the Lease")
	})
	secret(t, w, "key")
	w.NothingLeft(t)
}
