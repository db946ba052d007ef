package e2e

import (
	"slices"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// CSI cannot express sizes of 8Ei and more. They are rejected before the driver is called.
func TestSizesThatCSICannotExpressAreRejected(t *testing.T) {
	t.Parallel()
	w, _ := newResizable(t, csitest.Options{})
	before := w.Driver.Calls(csi.CreateVolume)
	w.CreateClaim(t, "huge", func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("20E")}
	})
	waitProvisioningFailed(t, w, "huge", "20E is too much")
	if got := w.Driver.Calls(csi.CreateVolume); got != before {
		t.Errorf("CreateVolume was called for it")
	}
	w.RequestSize(t, "data", "10E")
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "VolumeResizeFailed", "10E is too much")
	if got := requestedSizes(w); len(got) > 0 {
		t.Errorf("the driver was asked for %v", got)
	}
	w.RequestSize(t, "data", "2Gi")
	w.WaitSize(t, "data", "2Gi")
}

// A volume where no pod can use it is not published.
func TestVolumeOutsideTheRequestedTopologyIsDeleted(t *testing.T) {
	t.Parallel()
	w := &capacityWorld{world.New(t, csitest.Options{Segments: []map[string]string{{zoneKey: "a"}, {zoneKey: "b"}}})}
	w.addNode(t, "a")
	changeResponses(w.World, csi.CreateVolume, func(r *csipb.CreateVolumeResponse) {
		if v := r.GetVolume(); v != nil {
			v.AccessibleTopology = []*csipb.Topology{{Segments: map[string]string{zoneKey: "b"}}}
		}
	})
	w.CreateClass(t, nil)
	w.StartProvisioner(t, fastRetries...)
	w.CreateClaim(t, "data", nil)
	waitProvisioningFailed(t, w.World, "data", "outside the requested topology")
	w.Driver.SetHooks(csitest.Hooks{})
	w.WaitBound(t, "data")
	if got := len(w.Driver.Volumes()); got != 1 {
		t.Errorf("the driver has %d volumes", got)
	}
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// A secret of bytes and a name that the claim does not complete say what is wrong.
func TestUnusableSecretsAreNamed(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.StartProvisioner(t)
	w.CreateClass(t, func(c *storagev1.StorageClass) {
		c.Parameters = map[string]string{
			"csi.storage.k8s.io/provisioner-secret-name": "${pvc.annotations['example.com/key']}", "csi.storage.k8s.io/provisioner-secret-namespace": w.Namespace,
		}
	})
	secrets := w.Client.CoreV1().Secrets(w.Namespace)
	secret, err := secrets.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bytes"}, Data: map[string][]byte{"user": []byte("a"), "password": {0xff, 0xfe}},
	}, metav1.CreateOptions{})
	must(t, err)
	w.CreateClaim(t, "without", nil)
	waitProvisioningFailed(t, w, "without", `parameter csi.storage.k8s.io/provisioner-secret-name: "${pvc.annotations['example.com/key']}" refers to annotations that claim `+
		w.Namespace+`/without does not have: "example.com/key"`)
	w.CreateClaim(t, "data", func(c *corev1.PersistentVolumeClaim) { c.Annotations = map[string]string{"example.com/key": "bytes"} })
	waitProvisioningFailed(t, w, "data", `the value of key "password" is not UTF-8`)
	if got := w.Driver.Calls(csi.CreateVolume); got > 0 {
		t.Errorf("CreateVolume was called %d times", got)
	}
	secret.Data["password"] = []byte("b")
	_, err = secrets.Update(t.Context(), secret, metav1.UpdateOptions{})
	must(t, err)
	w.WaitBound(t, "data")
}

// CSI has no access mode for the two together.
func TestVolumeOfOneWriterAndManyReadersIsAttachedAndExpanded(t *testing.T) {
	t.Parallel()
	w := world.New(t, attachable)
	w.StartProvisioner(t)
	w.StartAttacher(t)
	w.StartResizer(t)
	w.CreateClass(t, world.Expandable)
	w.CreateClaim(t, "data", func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadOnlyMany}
	})
	volume := w.WaitBound(t, "data")
	name := w.CreateAttachment(t, volume.Name, w.CreateCSINode(t, "node", "id-1"))
	w.WaitAttached(t, name)
	w.RequestSize(t, "data", "2Gi")
	w.WaitSize(t, "data", "2Gi")
}

// The other driver would create volumes that nobody looks after, and answer that it has none to
// delete or detach.
func TestAnotherDriverBehindTheSocketIsNotCalled(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{Record: true})
	w.StartProvisioner(t, fastRetries...)
	w.CreateClass(t, nil)
	w.CreateClaim(t, "old", nil)
	old := w.WaitBound(t, "old")
	restartAs := func(name string) {
		w.Driver.Crash()
		w.Driver.Reconfigure(func(o *csitest.Options) { o.Name = name })
		must(t, w.Driver.Restart())
	}
	restartAs("other.example.com")
	before := len(w.Driver.Log())
	w.DeleteClaim(t, "old")
	w.CreateClaim(t, "new", nil)
	waitProvisioningFailed(t, w, "new", `is now "other.example.com"`)
	w.WaitEvent(t, "PersistentVolume/"+old.Name, corev1.EventTypeWarning, "VolumeFailedDelete", `is now "other.example.com"`)
	called := slices.ContainsFunc(w.Driver.Log()[before:], func(c csitest.Call) bool {
		return c.Method == csi.CreateVolume || c.Method == csi.DeleteVolume
	})
	if called {
		t.Error("the other driver was called")
	}
	restartAs(w.Name)
	w.WaitBound(t, "new")
	w.WaitPVGone(t, old)
	w.DeleteClaim(t, "new")
	w.WaitNothingLeft(t)
}

// A driver may announce PUBLISH_UNPUBLISH_VOLUME only after an upgrade. A volume that is attached
// then is not deleted.
func TestAttachedVolumeIsNotDeletedAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	all := attachable
	w := world.New(t, csitest.Options{AnyNode: true, Record: true, Controller: []csipb.ControllerServiceCapability_RPC_Type{
		csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	}})
	w.StartProvisioner(t, fastRetries...)
	w.CreateClass(t, nil)
	w.CreateClaim(t, "data", nil)
	volume := w.WaitBound(t, "data")
	w.Driver.Crash()
	w.Driver.Reconfigure(func(o *csitest.Options) { o.Controller, o.Version = all.Controller, "2" })
	must(t, w.Driver.Restart())
	w.StartAttacher(t)
	name := w.CreateAttachment(t, volume.Name, w.CreateCSINode(t, "node", "id-1"))
	w.WaitAttached(t, name)
	waitPublished(t, w, volume.Spec.CSI.VolumeHandle, "id-1")
	w.DeleteClaim(t, "data")
	w.WaitEvent(t, "PersistentVolume/"+volume.Name, corev1.EventTypeNormal, "WaitingForDetach", "")
	if got := w.Driver.Calls(csi.DeleteVolume); got > 0 {
		t.Error("DeleteVolume was called")
	}
	detachAndWait(t, w, name)
	w.WaitPVGone(t, volume)
}
