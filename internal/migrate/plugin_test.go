package migrate

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

const (
	driver = "ebs.csi.aws.com"
	plugin = "kubernetes.io/aws-ebs"
)

func volume() *corev1.PersistentVolume {
	return &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
		CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "vol-1", FSType: "xfs"},
	}}}
}

func TestVolumeIsTranslatedToInTreeAndBack(t *testing.T) {
	p := ForDriver(driver)
	was, err := p.ToInTree(plugin, volume())
	if err != nil || was.Spec.CSI != nil || was.Spec.AWSElasticBlockStore.VolumeID != "vol-1" || !p.HasVolume(was) {
		t.Fatalf("in-tree form: %+v, %v", was, err)
	}
	is, err := p.ToCSI(t.Context(), was)
	if err != nil || is.Spec.CSI.VolumeHandle != "vol-1" || is.Spec.CSI.FSType != "xfs" || p.HasVolume(is) {
		t.Errorf("CSI form: %+v, %v", is, err)
	}
}

func TestHandleIsRepairedFromTheNodeID(t *testing.T) {
	const node = "projects/mine/zones/zone-a/instances/node"
	tests := map[string]struct{ driver, handle, node, want string }{
		"a missing project and zone come from the node": {"pd.csi.storage.gke.io", "projects/UNSPECIFIED/zones/UNSPECIFIED/disks/disk", node, "projects/mine/zones/zone-a/disks/disk"},
		"a complete handle stays unchanged":             {"pd.csi.storage.gke.io", "projects/its/zones/zone-b/disks/disk", node, "projects/its/zones/zone-b/disks/disk"},
		"handles of other drivers are complete":         {driver, "vol-1", "i-1", "vol-1"},
		"a node ID without a zone is an error":          {"pd.csi.storage.gke.io", "projects/UNSPECIFIED/zones/UNSPECIFIED/disks/disk", "node", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ForDriver(tt.driver).RepairHandle(tt.handle, tt.node)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestInTreeClassIsTranslated(t *testing.T) {
	class := &storagev1.StorageClass{Provisioner: plugin, Parameters: map[string]string{"fsType": "xfs", "type": "gp3"}}
	got, err := ForDriver(driver).ClassToCSI(t.Context(), class)
	if err != nil || got.Parameters["csi.storage.k8s.io/fstype"] != "xfs" || got.Parameters["type"] != "gp3" || got.Provisioner != plugin {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestOtherObjectsStayUnchanged(t *testing.T) {
	foreign := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
		GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "disk"},
	}}}
	class := &storagev1.StorageClass{Provisioner: driver, Parameters: map[string]string{"zone": "a"}}
	for name, p := range map[string]Plugin{"a driver that replaces no plugin": ForDriver("csi.example.com"), "another driver": ForDriver(driver)} {
		t.Run(name, func(t *testing.T) {
			if got, err := p.ToCSI(t.Context(), foreign); got != foreign || err != nil || p.HasVolume(foreign) {
				t.Errorf("a foreign volume: %+v, %v", got, err)
			}
			if got, err := p.ClassToCSI(t.Context(), class); got != class || err != nil || p.IsProvisioner(class.Provisioner) {
				t.Errorf("a class of the driver: %+v, %v", got, err)
			}
			own := volume()
			if got, err := p.ToInTree(driver, own); got != own || err != nil {
				t.Errorf("a volume of the driver: %+v, %v", got, err)
			}
		})
	}
	if ForDriver("csi.example.com").IsProvisioner("") {
		t.Error("the empty provisioner is taken for the plugin of a driver that replaces none")
	}
}
