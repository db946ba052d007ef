package resize

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// wholeMeta is metadata with everything that other programs write.
func wholeMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "team", Name: name, UID: "uid", ResourceVersion: "8", Finalizers: []string{"f"}, Labels: map[string]string{"app": "x"},
		Annotations: map[string]string{
			"notes": "long", kube.AnnStorageResizer: "d", kube.AnnNodeExpansionNotRequired: "yes", kube.AnnPreResizeCapacity: "1Gi", kube.AnnModifySecretName: "s",
		},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "somebody"}},
	}
}

func keptMeta(name string, annotations map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "team", Name: name, UID: "uid", ResourceVersion: "8", Annotations: annotations}
}

func TestWhatIsCached(t *testing.T) {
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	claim := func(volume string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{
			ObjectMeta: wholeMeta("data"),
			Spec: corev1.PersistentVolumeClaimSpec{
				VolumeName: volume, StorageClassName: ptr.To("c"), Resources: corev1.VolumeResourceRequirements{Requests: size}, VolumeAttributesClassName: ptr.To("gold"),
			},
			Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: size},
		}
	}
	volume := func(driver string) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{
			ObjectMeta: wholeMeta("pv"),
			Spec: corev1.PersistentVolumeSpec{
				Capacity: size, ClaimRef: &corev1.ObjectReference{Namespace: "team", Name: "data", UID: "c"}, MountOptions: []string{"noatime"}, NodeAffinity: &corev1.VolumeNodeAffinity{},
				PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
					Driver: driver, VolumeHandle: "h", FSType: "xfs", VolumeAttributes: map[string]string{"pool": "ssd"}, ControllerExpandSecretRef: &corev1.SecretReference{Name: "s"},
				}},
			},
			Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound},
		}
	}
	bound, ours := claim("pv"), volume(driverName)
	bound.ObjectMeta = keptMeta("data", map[string]string{kube.AnnStorageResizer: "d", kube.AnnNodeExpansionNotRequired: "yes"})
	bound.Spec.StorageClassName = nil
	ours.ObjectMeta = keptMeta("pv", map[string]string{kube.AnnPreResizeCapacity: "1Gi", kube.AnnModifySecretName: "s"})
	ours.Spec.NodeAffinity, ours.Spec.CSI.VolumeAttributes, ours.Status = nil, nil, corev1.PersistentVolumeStatus{}
	tests := map[string]struct{ have, want client.Object }{
		"a bound claim keeps what it requests and what it has": {claim("pv"), bound},
		"a claim without a volume keeps its identity":          {claim(""), &corev1.PersistentVolumeClaim{ObjectMeta: keptMeta("data", nil)}},
		"a volume of our driver keeps what its requests need":  {volume(driverName), ours},
		"a volume of another driver keeps its identity":        {volume("other.example.com"), &corev1.PersistentVolume{ObjectMeta: keptMeta("pv", nil)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for range 2 { // As client-go does with the initial list.
				got, err := (&Options{Driver: driverName}).reduce(tt.have)
				if err != nil || got != any(tt.have) {
					t.Fatalf("got %v, %v", got, err)
				}
			}
			if diff := cmp.Diff(tt.want, tt.have); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What cannot be seen in the cache stays when the object is written.
func TestAPatchOfACachedObjectChangesNothingElse(t *testing.T) {
	cached := reduceClaim(&corev1.PersistentVolumeClaim{ObjectMeta: wholeMeta("data"), Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv", StorageClassName: ptr.To("c")}})
	changed := cached.DeepCopy()
	changed.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}
	patch, err := mergeFromUnchanged(cached).Data(changed)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"metadata":{"resourceVersion":"8"},"status":{"capacity":{"storage":"2Gi"}}}`; string(patch) != want {
		t.Errorf("got %s, want %s", patch, want)
	}
}

func TestAnnotationsOfOtherPeopleTakeNoMemory(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: wholeMeta("data"), Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}}
	claim.Annotations["notes"], claim.Annotations[kube.AnnStorageResizer] = strings.Repeat("x", 256<<10), strings.Repeat("x", 256<<10)
	if _, err := (&Options{Driver: driverName}).reduce(claim); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(claim)
	if err != nil || len(text) > 1024 {
		t.Errorf("a claim takes %d bytes in the cache, %v", len(text), err)
	}
}
