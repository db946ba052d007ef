package provision

import (
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/provision/placement"
)

// The request and the PersistentVolume, field by field, for a class that sets as much as
// it can.
func TestPlanAndCompleteOfARichClass(t *testing.T) {
	s, o := readyState(t), options()
	o.ExtraCreateMetadata = true
	s.class.MountOptions = []string{"noatime"}
	s.class.Parameters = map[string]string{
		"pool":                                             "ssd",
		"csi.storage.k8s.io/fstype":                        "xfs",
		"csi.storage.k8s.io/secret-name":                   "all",
		"csi.storage.k8s.io/secret-namespace":              "vault",
		"csi.storage.k8s.io/node-stage-secret-name":        "${pvc.name}-stage",
		"csi.storage.k8s.io/node-stage-secret-namespace":   "${pvc.namespace}",
		"csi.storage.k8s.io/controller-modify-secret-name": "modify", "csi.storage.k8s.io/controller-modify-secret-namespace": "vault",
	}
	i, err := plan(s, o)
	if err != nil {
		t.Fatal(err)
	}
	name := "pvc-" + uid
	wantRequest := &csipb.CreateVolumeRequest{
		Name:          name,
		CapacityRange: &csipb.CapacityRange{RequiredBytes: 1 << 30},
		VolumeCapabilities: []*csipb.VolumeCapability{{
			AccessType: &csipb.VolumeCapability_Mount{Mount: &csipb.VolumeCapability_MountVolume{FsType: "xfs", MountFlags: []string{"noatime"}}},
			AccessMode: &csipb.VolumeCapability_AccessMode{Mode: csipb.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER},
		}},
		Parameters: map[string]string{
			"pool":                       "ssd",
			"csi.storage.k8s.io/pv/name": name, "csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "team",
		},
	}
	if diff := cmp.Diff(wantRequest, i.Request, protocmp.Transform()); diff != "" {
		t.Errorf("request: %s", diff)
	}
	all := &corev1.SecretReference{Name: "all", Namespace: "vault"}
	if diff := cmp.Diff(all, i.Secret); diff != "" {
		t.Errorf("secret: %s", diff)
	}
	want := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: name,
			Annotations: map[string]string{
				"pv.kubernetes.io/provisioned-by":                            "storage.example.com/csi",
				"volume.kubernetes.io/provisioner-deletion-secret-name":      "all",
				"volume.kubernetes.io/provisioner-deletion-secret-namespace": "vault",
				"volume.kubernetes.io/controller-modify-secret-name":         "modify",
				"volume.kubernetes.io/controller-modify-secret-namespace":    "vault",
			},
			Finalizers: []string{"external-provisioner.volume.kubernetes.io/finalizer"},
		},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:  []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			MountOptions: []string{"noatime"},
			Capacity:     corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(2<<30, resource.BinarySI)},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: "team", Name: "data", UID: uid, ResourceVersion: "7",
			},
			StorageClassName:              "fast",
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			VolumeMode:                    ptr.To(corev1.PersistentVolumeFilesystem),
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchExpressions: []corev1.NodeSelectorRequirement{
					{Key: "rack", Operator: corev1.NodeSelectorOpIn, Values: []string{"1"}},
					{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}},
				}},
				{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"b"}}}},
			}}},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: "csitest.holdfast.io", VolumeHandle: "vol-1", FSType: "xfs",
				VolumeAttributes:           map[string]string{"from": "driver", "storage.kubernetes.io/csiProvisionerIdentity": "identity"},
				NodeStageSecretRef:         &corev1.SecretReference{Name: "data-stage", Namespace: "team"},
				ControllerPublishSecretRef: all, NodePublishSecretRef: all, ControllerExpandSecretRef: all, NodeExpandSecretRef: all,
			}},
		},
	}
	made := &csipb.Volume{
		VolumeId: "vol-1", CapacityBytes: 2 << 30,
		VolumeContext:      map[string]string{"from": "driver"},
		AccessibleTopology: []*csipb.Topology{{Segments: map[string]string{"zone": "a", "rack": "1"}}, {Segments: map[string]string{"zone": "b"}}},
	}
	if diff := cmp.Diff(want, complete(i, made)); diff != "" {
		t.Errorf("volume: %s", diff)
	}
	if i.Volume.Spec.CSI.VolumeHandle != "" || len(i.Volume.Spec.CSI.VolumeAttributes) != 1 {
		t.Error("complete has changed the volume of the operation")
	}
}

func TestOnlyVolumesThatAreDeletedGetAFinalizer(t *testing.T) {
	s := readyState(t)
	s.class.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimRetain)
	i, err := plan(s, options())
	if err != nil {
		t.Fatal(err)
	}
	if policy := i.Volume.Spec.PersistentVolumeReclaimPolicy; policy != corev1.PersistentVolumeReclaimRetain {
		t.Errorf("the policy is %s, and the class says Retain", policy)
	}
	if f := i.Volume.Finalizers; len(f) > 0 {
		t.Errorf("a retained volume has finalizers %v", f)
	}
}

func TestPlanOfABlockClaim(t *testing.T) {
	s := readyState(t)
	s.claim.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
	s.claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany, corev1.ReadWriteOnce}
	s.class.Parameters["csi.storage.k8s.io/fstype"] = "ext4"
	i, err := plan(s, options())
	if err != nil {
		t.Fatal(err)
	}
	modes := []csipb.VolumeCapability_AccessMode_Mode{
		csipb.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, csipb.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	}
	if len(i.Request.VolumeCapabilities) != len(modes) {
		t.Fatalf("got %d capabilities, want one for each access mode", len(i.Request.VolumeCapabilities))
	}
	for n, c := range i.Request.VolumeCapabilities {
		if c.GetBlock() == nil || c.GetAccessMode().GetMode() != modes[n] {
			t.Errorf("capability %d is %v, want block and %v", n, c, modes[n])
		}
	}
	if fs := i.Volume.Spec.CSI.FSType; fs != "" {
		t.Errorf("a block volume has filesystem %q", fs)
	}
	if mode := i.Volume.Spec.VolumeMode; mode == nil || *mode != corev1.PersistentVolumeBlock {
		t.Errorf("volume mode is %v", mode)
	}
}

func TestPlanMarksReadOnlyVolumesWhenAsked(t *testing.T) {
	for name, tt := range map[string]struct {
		flag  bool
		modes []corev1.PersistentVolumeAccessMode
		want  bool
	}{
		"a claim that only reads":                   {true, []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}, true},
		"a claim that also writes":                  {true, []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany, corev1.ReadWriteMany}, false},
		"a claim that only reads, without the flag": {false, []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, o := readyState(t), options()
			o.ReadOnlyPublish, s.claim.Spec.AccessModes = tt.flag, tt.modes
			i, err := plan(s, o)
			if err != nil {
				t.Fatal(err)
			}
			if got := i.Volume.Spec.CSI.ReadOnly; got != tt.want {
				t.Errorf("read-only is %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPlanNamesTheSourceAndTheAttributesClass(t *testing.T) {
	s := readyState(t)
	s.source = snapshot()
	s.attributes = &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Parameters: map[string]string{"iops": "9000"},
	}
	i, err := plan(s, options())
	if err != nil {
		t.Fatal(err)
	}
	if id := i.Request.GetVolumeContentSource().GetSnapshot().GetSnapshotId(); id != "snap-1" {
		t.Errorf("the request restores %q", id)
	}
	if i.Source == nil || *i.Source != s.source.Source {
		t.Errorf("the operation has source %v", i.Source)
	}
	if diff := cmp.Diff(map[string]string{"iops": "9000"}, i.Request.GetMutableParameters()); diff != "" {
		t.Error(diff)
	}
	if name := i.Volume.Spec.VolumeAttributesClassName; name == nil || *name != "gold" {
		t.Errorf("the volume's attributes class is %v", name)
	}
	s.source.Snapshot.Content = nil
	if _, err := plan(s, options()); err == nil {
		t.Error("a volume was planned from a snapshot that does not exist")
	}
}

func TestTheRequestHasARequirementOnlyIfTheDriverHasTopology(t *testing.T) {
	s := readyState(t)
	s.nodes = placement.NewNodes(placement.NodeTopology{Name: "n1", Labels: map[string]string{"zone": "a"}, Keys: []string{"zone"}})
	i, err := plan(s, options())
	if err != nil || i.Request.AccessibilityRequirements != nil {
		t.Errorf("without topology: %v, %v", i.Request.AccessibilityRequirements, err)
	}
	s.info = driverInfo(t, csitest.Options{Segments: []map[string]string{{"zone": "a"}}})
	i, err = plan(s, options())
	if err != nil || len(i.Request.AccessibilityRequirements.GetRequisite()) != 1 {
		t.Errorf("with topology: %v, %v", i.Request.AccessibilityRequirements, err)
	}
}
