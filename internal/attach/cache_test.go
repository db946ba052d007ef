package attach

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// reduceCopy returns a copy of an object, reduced as in the cache.
func reduceCopy[T client.Object](t *testing.T, o T) T {
	t.Helper()
	o = o.DeepCopyObject().(T)
	o.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "somebody"}})
	for range 2 { // Objects of the initial list are reduced twice.
		if small, err := options.reduce(o); err != nil || small != any(o) {
			t.Fatalf("not reduced in place, %v: %v", small, err)
		}
	}
	return o
}

func checkReduced[T client.Object](t *testing.T, have, want T) {
	t.Helper()
	if diff := cmp.Diff(want, reduceCopy(t, have)); diff != "" {
		t.Error(diff)
	}
}

// inUse is a volume of a driver with all its fields.
func inUse(driver string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: "pv", UID: "pv-uid", ResourceVersion: "8", Labels: map[string]string{"a": "label"},
			Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": "d", "an": "annotation"}, Finalizers: []string{"kubernetes.io/pv-protection"},
		},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			ClaimRef:    &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: "team", Name: "data", UID: "claim-uid", ResourceVersion: "7"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: driver, VolumeHandle: "vol", VolumeAttributes: map[string]string{"pool": "ssd"},
				ControllerPublishSecretRef: &corev1.SecretReference{Namespace: "team", Name: "secret"},
			}},
		},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound},
	}
}

// reducedVolume is that volume reduced, for another driver.
func reducedVolume(driver string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv", UID: "pv-uid", ResourceVersion: "8"},
		Spec: corev1.PersistentVolumeSpec{
			ClaimRef: &corev1.ObjectReference{Namespace: "team", Name: "data", UID: "claim-uid"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: driver, VolumeHandle: "vol", ControllerPublishSecretRef: &corev1.SecretReference{Namespace: "team", Name: "secret"},
			}},
		},
	}
}

func TestVolumesAreReducedInTheCache(t *testing.T) {
	with := func(v *corev1.PersistentVolume, change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
		change(v)
		return v
	}
	local := func(v *corev1.PersistentVolume) { v.Spec.CSI = nil }
	unclaimed := func(v *corev1.PersistentVolume) { v.Spec.ClaimRef = nil }
	protected := func(v *corev1.PersistentVolume) {
		v.Finalizers = []string{"kubernetes.io/pv-protection", finalizer}
		v.DeletionTimestamp = &metav1.Time{}
	}
	tests := map[string]struct{ have, want *corev1.PersistentVolume }{
		"a volume of our driver loses only the annotations of other people": {inUse(driver), with(inUse(driver), func(v *corev1.PersistentVolume) { delete(v.Annotations, "an") })},
		"a volume of another driver keeps its claim and handle":             {inUse("other.example.com"), reducedVolume("other.example.com")},
		"a volume without a driver keeps its claim":                         {with(inUse(""), local), with(reducedVolume(""), local)},
		"a volume without a claim keeps its handle":                         {with(inUse("other.example.com"), unclaimed), with(reducedVolume("other.example.com"), unclaimed)},
		"a volume with our finalizer keeps all finalizers":                  {with(inUse("other.example.com"), protected), with(reducedVolume("other.example.com"), protected)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { checkReduced(t, tt.have, tt.want) })
	}
}

func TestAttachmentsAreReducedInTheCache(t *testing.T) {
	of := func(attacher string) *storagev1.VolumeAttachment {
		return &storagev1.VolumeAttachment{
			ObjectMeta: metav1.ObjectMeta{Name: "va", UID: "uid", ResourceVersion: "9", Finalizers: []string{finalizer}, Annotations: map[string]string{handleAnnotation: "vol", nodeAnnotation: "n", secretAnnotation: "team/secret", "an": "annotation"}},
			Spec:       storagev1.VolumeAttachmentSpec{Attacher: attacher, NodeName: "node", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To("pv")}},
			Status:     storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"device": "/dev/x"}},
		}
	}
	foreign := &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: "va", UID: "uid", ResourceVersion: "9"},
		Spec:       storagev1.VolumeAttachmentSpec{Attacher: "other.example.com"},
	}
	tests := map[string]struct{ have, want *storagev1.VolumeAttachment }{
		"our VolumeAttachment loses only the annotations of other people": {of(driver), func() *storagev1.VolumeAttachment { a := of(driver); delete(a.Annotations, "an"); return a }()},
		"a VolumeAttachment of another driver keeps its attacher":         {of("other.example.com"), foreign},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { checkReduced(t, tt.have, tt.want) })
	}
}

func TestCSINodesAreReducedInTheCache(t *testing.T) {
	node := func(drivers ...storagev1.CSINodeDriver) *storagev1.CSINode {
		return &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "node", UID: "uid", ResourceVersion: "5"}, Spec: storagev1.CSINodeSpec{Drivers: drivers}}
	}
	limit := &storagev1.VolumeNodeResources{Count: ptr.To[int32](16)}
	other := storagev1.CSINodeDriver{Name: "other.example.com", NodeID: "elsewhere", TopologyKeys: []string{"zone"}}
	ours := storagev1.CSINodeDriver{Name: driver, NodeID: "id-of-node", TopologyKeys: []string{"zone"}, Allocatable: limit}
	tests := map[string]struct{ have, want *storagev1.CSINode }{
		"a node keeps the driver's node ID":       {node(other, ours), node(storagev1.CSINodeDriver{Name: driver, NodeID: "id-of-node"})},
		"a node without the driver keeps nothing": {node(other), node()},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { checkReduced(t, tt.have, tt.want) })
	}
}

// Decisions with reduced objects are the same as with whole objects.
func TestDecisionsAreTheSameWithReducedVolumes(t *testing.T) {
	tests := map[string]struct {
		change func(*corev1.PersistentVolume)
		step   action
	}{
		"a volume of our driver":     {func(*corev1.PersistentVolume) {}, publish},
		"a volume of another driver": {func(v *corev1.PersistentVolume) { v.Spec.CSI.Driver = "other.example.com" }, reportProblem},
		"a volume without a driver":  {func(v *corev1.PersistentVolume) { v.Spec.CSI = nil }, reportProblem},
		"a deleted volume of another driver": {func(v *corev1.PersistentVolume) {
			v.Spec.CSI.Driver = "other.example.com"
			v.DeletionTimestamp = &metav1.Time{}
		}, reportProblem},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			volume := inUse(driver)
			tt.change(volume)
			whole, kept := newState(), newState()
			for s, v := range map[*state]*corev1.PersistentVolume{&whole: volume, &kept: reduceCopy(t, volume)} {
				s.volume, s.spec = v, &v.Spec
			}
			got := decide(kept, options)
			if want := decide(whole, options); got != want || got.action != tt.step {
				t.Errorf("reduced %v, whole %v", got, want)
			}
			for _, change := range []func(*state){hasOurFinalizer, deleting} {
				change(&whole)
				change(&kept)
			}
			if diff := cmp.Diff(whole.published(), kept.published(), cmp.AllowUnexported(record{})); diff != "" {
				t.Errorf("another volume would be detached: %s", diff)
			}
			if diff := cmp.Diff(whole.eventTarget(), kept.eventTarget()); diff != "" {
				t.Errorf("another object would get the event: %s", diff)
			}
		})
	}
}
