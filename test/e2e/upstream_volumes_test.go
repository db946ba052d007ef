package e2e

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/test/world"
)

// PersistentVolumes that upstream's csi-provisioner or an administrator has written
// are deleted by this program too: by their handle, and with the secret that the
// object names.
func TestVolumesOfOthersAreDeleted(t *testing.T) {
	t.Parallel()
	const (
		nameKey      = "volume.kubernetes.io/provisioner-deletion-secret-name"
		namespaceKey = "volume.kubernetes.io/provisioner-deletion-secret-namespace"
	)
	tests := map[string]struct {
		change func(w *world.World, v *corev1.PersistentVolume)
		secret string // expected in the driver's request
	}{
		"with all that csi-provisioner writes": {func(w *world.World, v *corev1.PersistentVolume) {
			v.Name = "k8s-" + w.Namespace + "-0123456789ab" // another prefix, and a UID cut short
			v.Annotations = map[string]string{
				"pv.kubernetes.io/provisioned-by": w.Name, nameKey: "delete", namespaceKey: w.Namespace,
				"volume.kubernetes.io/controller-modify-secret-name": "modify", "volume.kubernetes.io/controller-modify-secret-namespace": w.Namespace,
			}
			v.Finalizers = []string{"external-provisioner.volume.kubernetes.io/finalizer", "kubernetes.io/pv-protection"}
			v.Spec.CSI.VolumeAttributes = map[string]string{"storage.kubernetes.io/csiProvisionerIdentity": "1700000000000-4321-" + w.Name}
		}, "delete"},
		"without a secret": {func(w *world.World, v *corev1.PersistentVolume) {
			v.Annotations = map[string]string{"pv.kubernetes.io/provisioned-by": w.Name, nameKey: "", namespaceKey: ""}
			v.Finalizers = []string{"external-provisioner.volume.kubernetes.io/finalizer"}
		}, ""},
		"with a secret that is gone": {func(w *world.World, v *corev1.PersistentVolume) {
			v.Annotations = map[string]string{"pv.kubernetes.io/provisioned-by": w.Name, nameKey: "gone", namespaceKey: w.Namespace}
		}, ""},
		"by a version that wrote neither finalizer nor secret": {func(w *world.World, v *corev1.PersistentVolume) {
			v.Annotations = map[string]string{"pv.kubernetes.io/provisioned-by": w.Name}
		}, "by-class"},
		"by hand":                          {func(*world.World, *corev1.PersistentVolume) {}, "by-class"},
		"by hand, of no class that exists": {func(w *world.World, v *corev1.PersistentVolume) { v.Spec.StorageClassName = w.Namespace + "-none" }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, csitest.Options{Record: true})
			createSecret(t, w, "delete")
			createSecret(t, w, "by-class")
			w.CreateClass(t, func(c *storagev1.StorageClass) {
				c.Parameters = map[string]string{
					"csi.storage.k8s.io/provisioner-secret-name": "by-class", "csi.storage.k8s.io/provisioner-secret-namespace": "${pvc.namespace}",
				}
			})
			volume := handWrittenPV(w, w.CreateVolumeAtDriver(t, name))
			tt.change(w, volume)
			made, err := w.Client.CoreV1().PersistentVolumes().Create(t.Context(), volume, metav1.CreateOptions{})
			must(t, err)
			w.CreateClaim(t, "data", func(c *corev1.PersistentVolumeClaim) {
				c.Spec.VolumeName, c.Spec.StorageClassName = made.Name, &made.Spec.StorageClassName
			})
			w.WaitBound(t, "data")
			w.StartProvisioner(t)
			w.WaitPV(t, made.Name, func(v *corev1.PersistentVolume) error {
				if !slices.Contains(v.Finalizers, "external-provisioner.volume.kubernetes.io/finalizer") {
					return fmt.Errorf("the volume lacks the provisioner's finalizer: %q", v.Finalizers)
				}
				return nil
			})
			w.DeleteClaim(t, "data")
			w.WaitPVGone(t, made)
			w.WaitNothingLeft(t)
			deleted := deleteRequests(w)
			if len(deleted) != 1 || deleted[0].GetVolumeId() != volume.Spec.CSI.VolumeHandle || deleted[0].GetSecrets()["key"] != tt.secret {
				t.Errorf("the DeleteVolume requests are %v, want %s with secret %q", deleted, volume.Spec.CSI.VolumeHandle, tt.secret)
			}
		})
	}
}

// The provisioner name of classes can change while volumes exist. Volumes of the
// driver's own name stay this program's; for those of any other name an event says why
// they are not deleted.
func TestVolumesOfFormerProvisionerName(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.CreateClass(t, nil)
	first := w.StartProvisioner(t)
	w.CreateClaim(t, "own", nil)
	w.CreateClaim(t, "other", nil)
	own, other := w.WaitBound(t, "own"), w.WaitBound(t, "other")
	first.Kill()
	annotate := func(by string) {
		patch := []byte(`{"metadata":{"annotations":{"pv.kubernetes.io/provisioned-by":"` + by + `"}}}`)
		_, err := w.Client.CoreV1().PersistentVolumes().Patch(t.Context(), other.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		must(t, err)
	}
	annotate("former.example.com/csi")
	w.StartProvisioner(t, "--provisioner=storage.example.com/"+w.Namespace, "--retry-interval-start=0.1", "--retry-interval-max=1")
	w.DeleteClaim(t, "own")
	w.DeleteClaim(t, "other")
	w.WaitPVGone(t, own)
	w.WaitEvent(t, "PersistentVolume/"+other.Name, corev1.EventTypeWarning, "VolumeFailedDelete", "--provisioner=former.example.com/csi")
	if n := w.Driver.Calls(csi.DeleteVolume); n != 1 {
		t.Errorf("the driver was called %d times", n)
	}
	annotate(w.Name) // As the event says.
	w.WaitPVGone(t, other)
	w.WaitNothingLeft(t)
}

// deleteRequests returns all DeleteVolume requests.
func deleteRequests(w *world.World) []*csipb.DeleteVolumeRequest {
	var all []*csipb.DeleteVolumeRequest
	for _, call := range w.Driver.Log() {
		if r, ok := call.Request.(*csipb.DeleteVolumeRequest); ok {
			all = append(all, r)
		}
	}
	return all
}

// A clone source that another program, or a dead process, has protected is unprotected
// when it is deleted, before the start or after.
func TestCloneSourceProtectedByOthersIsReleased(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	first := w.StartProvisioner(t)
	w.CreateClass(t, nil)
	for _, name := range []string{"before", "after"} {
		w.CreateClaim(t, name, func(c *corev1.PersistentVolumeClaim) { c.Finalizers = []string{kube.CloneSourceFinalizer} })
		w.WaitBound(t, name)
	}
	first.Kill()
	w.DeleteClaim(t, "before")
	w.StartProvisioner(t)
	w.DeleteClaim(t, "after")
	for _, name := range []string{"before", "after"} {
		w.WaitClaimGone(t, name)
	}
	w.WaitNothingLeft(t)
}

// The test compares the whole PersistentVolume, field by field: other programs, such
// as upstream's csi-provisioner, rely on it.
func TestPersistentVolumeHasAllFields(t *testing.T) {
	t.Parallel()
	w := &capacityWorld{world.New(t, csitest.Options{Segments: []map[string]string{{zoneKey: "a"}, {zoneKey: "b"}}})}
	w.addNode(t, "a")
	w.addNode(t, "b")
	createSecret(t, w.World, "provision")
	parameters := map[string]string{"pool": "ssd", "csi.storage.k8s.io/fstype": "xfs"}
	for _, use := range []string{"provisioner", "controller-publish", "node-stage", "node-publish", "controller-expand", "node-expand", "controller-modify"} {
		parameters["csi.storage.k8s.io/"+use+"-secret-name"] = "${pvc.name}-" + use
		parameters["csi.storage.k8s.io/"+use+"-secret-namespace"] = "${pvc.namespace}"
	}
	parameters["csi.storage.k8s.io/provisioner-secret-name"] = "provision"
	class := w.CreateClass(t, func(c *storagev1.StorageClass) {
		c.Provisioner, c.Parameters, c.MountOptions = "storage.example.com/"+w.Namespace, parameters, []string{"noatime", "discard"}
		world.WaitForFirstConsumer(c)
		c.AllowVolumeExpansion = ptr.To(true)
	})
	_, err := w.Client.StorageV1().VolumeAttributesClasses().Create(t.Context(), &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}, DriverName: w.Name, Parameters: map[string]string{"iops": "9000"},
	}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		must(t, w.Client.StorageV1().VolumeAttributesClasses().Delete(context.Background(), w.Namespace, metav1.DeleteOptions{}))
	})
	w.StartProvisioner(t, "--provisioner="+class.Provisioner, "--volume-name-prefix=csi", "--controller-publish-readonly", "--strict-topology")

	for name, change := range map[string]func(*corev1.PersistentVolumeClaim, *corev1.PersistentVolume){
		"filesystem": func(*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {},
		"block": func(c *corev1.PersistentVolumeClaim, want *corev1.PersistentVolume) {
			c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
			want.Spec.VolumeMode, want.Spec.CSI.FSType = c.Spec.VolumeMode, ""
		},
		"read-only": func(c *corev1.PersistentVolumeClaim, want *corev1.PersistentVolume) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}
			want.Spec.AccessModes, want.Spec.CSI.ReadOnly = c.Spec.AccessModes, true
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := expectedVolume(w, class, name)
			claim := w.CreateClaim(t, name, func(c *corev1.PersistentVolumeClaim) {
				c.Annotations = map[string]string{"volume.kubernetes.io/selected-node": w.nodeName("b")}
				c.Spec.VolumeAttributesClassName = &w.Namespace
				change(c, want)
			})
			got := w.WaitBound(t, name)
			want.Name = "csi-" + string(claim.UID)
			want.Spec.ClaimRef.UID = claim.UID
			want.Spec.CSI.VolumeHandle = got.Spec.CSI.VolumeHandle
			want.Spec.CSI.VolumeAttributes["name"] = want.Name // of csitest's context
			identity := got.Spec.CSI.VolumeAttributes["storage.kubernetes.io/csiProvisionerIdentity"]
			if !regexp.MustCompile(`^[0-9]{13}-[0-9]{1,4}-` + regexp.QuoteMeta(w.Name) + `$`).MatchString(identity) {
				t.Errorf("the identity is %q", identity)
			}
			want.Spec.CSI.VolumeAttributes["storage.kubernetes.io/csiProvisionerIdentity"] = identity
			if diff := cmp.Diff(want, got,
				cmpopts.IgnoreFields(metav1.ObjectMeta{}, "UID", "ResourceVersion", "CreationTimestamp", "ManagedFields", "Generation"),
				cmpopts.IgnoreFields(corev1.ObjectReference{}, "ResourceVersion"),
				cmpopts.IgnoreFields(corev1.PersistentVolume{}, "Status"),
				cmpopts.SortSlices(func(a, b string) bool { return a < b }),
			); diff != "" {
				t.Error(diff)
			}
			if at := slices.IndexFunc(w.Driver.Volumes(), func(v csitest.Volume) bool { return v.ID == got.Spec.CSI.VolumeHandle }); at < 0 {
				t.Errorf("the driver does not have %s", got.Spec.CSI.VolumeHandle)
			} else if diff := cmp.Diff(map[string]string{"pool": "ssd"}, maps.Clone(w.Driver.Volumes()[at].Params)); diff != "" {
				t.Errorf("the class parameters at the driver: %s", diff)
			}
			w.DeleteClaim(t, name)
			w.WaitNothingLeft(t)
		})
	}
}

// expectedVolume returns the object for a claim in zone b, without the fields that are
// known only after its creation.
func expectedVolume(w *capacityWorld, class *storagev1.StorageClass, claim string) *corev1.PersistentVolume {
	ref := func(use string) *corev1.SecretReference {
		return &corev1.SecretReference{Name: claim + "-" + use, Namespace: w.Namespace}
	}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Annotations: map[string]string{
				"pv.kubernetes.io/provisioned-by":                            class.Provisioner,
				"volume.kubernetes.io/provisioner-deletion-secret-name":      "provision",
				"volume.kubernetes.io/provisioner-deletion-secret-namespace": w.Namespace,
				"volume.kubernetes.io/controller-modify-secret-name":         claim + "-controller-modify",
				"volume.kubernetes.io/controller-modify-secret-namespace":    w.Namespace,
			},
			// The API server adds the second one.
			Finalizers: []string{"external-provisioner.volume.kubernetes.io/finalizer", "kubernetes.io/pv-protection"},
		},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			MountOptions:                  []string{"noatime", "discard"},
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			ClaimRef:                      &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: w.Namespace, Name: claim},
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			VolumeMode:                    ptr.To(corev1.PersistentVolumeFilesystem),
			VolumeAttributesClassName:     &w.Namespace,
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: zoneKey, Operator: corev1.NodeSelectorOpIn, Values: []string{"b"}}},
			}}}},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: w.Name, FSType: "xfs", VolumeAttributes: map[string]string{},
				ControllerPublishSecretRef: ref("controller-publish"), NodeStageSecretRef: ref("node-stage"), NodePublishSecretRef: ref("node-publish"),
				ControllerExpandSecretRef: ref("controller-expand"), NodeExpandSecretRef: ref("node-expand"),
			}},
		},
	}
}
