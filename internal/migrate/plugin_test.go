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
		t.Fatalf("in the plugin's form: %+v, %v", was, err)
	}
	is, err := p.ToCSI(t.Context(), was)
	if err != nil || is.Spec.CSI.VolumeHandle != "vol-1" || is.Spec.CSI.FSType != "xfs" || p.HasVolume(is) {
		t.Errorf("in the driver's form: %+v, %v", is, err)
	}
}

func TestHandleIsRepairedFromTheNodeID(t *testing.T) {
	const node = "projects/mine/zones/zone-a/instances/node"
	tests := map[string]struct{ driver, handle, node, want string }{
		"a disk without a project and a zone is where the node is": {"pd.csi.storage.gke.io", "projects/UNSPECIFIED/zones/UNSPECIFIED/disks/disk", node, "projects/mine/zones/zone-a/disks/disk"},
		"one that says where it is stays as it is":                 {"pd.csi.storage.gke.io", "projects/its/zones/zone-b/disks/disk", node, "projects/its/zones/zone-b/disks/disk"},
		"others say all":                        {driver, "vol-1", "i-1", "vol-1"},
		"a node that does not say it helps not": {"pd.csi.storage.gke.io", "projects/UNSPECIFIED/zones/UNSPECIFIED/disks/disk", "node", ""},
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
	for name, p := range map[string]Plugin{"a driver without a plugin": ForDriver("csi.example.com"), "another driver": ForDriver(driver)} {
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
		t.Error("nobody's provisioner is the plugin of a driver that has none")
	}
}
