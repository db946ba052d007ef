package attach

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/migrate"
)

func TestInTreeVolumesAreTranslated(t *testing.T) {
	const disk = "projects/UNSPECIFIED/zones/UNSPECIFIED/disks/disk"
	gce := &Options{Driver: "pd.csi.storage.gke.io", Plugin: migrate.ForDriver("pd.csi.storage.gke.io")}
	plugins := corev1.PersistentVolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "disk"}}
	others := corev1.PersistentVolumeSource{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: "vol-1"}}
	tests := map[string]struct {
		source corev1.PersistentVolumeSource
		node   string
		change func(*state) // of the VolumeAttachment
		step   action
		handle string // what would be detached
	}{
		"a volume is translated and its handle completed":               {plugins, "projects/p/zones/z/instances/n", nil, publish, "projects/p/zones/z/disks/disk"},
		"a handle that cannot be completed is reported":                 {plugins, "node", nil, reportProblem, ""},
		"without a node the handle stays incomplete":                    {plugins, "", nil, reportProblem, disk},
		"a recorded volume is detached even if it cannot be translated": {plugins, "node", func(s *state) { recorded(s); deleting(s); s.attachment.Finalizers = []string{gce.finalizer()} }, unpublish, "vol"},
		"a volume attached by upstream has the handle for the recorded node": {plugins, "projects/p/zones/other/instances/n", func(s *state) {
			deleting(s)
			s.attachment.Finalizers = []string{gce.finalizer()}
			s.attachment.Annotations = map[string]string{nodeAnnotation: "projects/p/zones/z/instances/n"}
		}, unpublish, "projects/p/zones/z/disks/disk"},
		"a volume of another in-tree plugin is reported": {others, "node", nil, reportProblem, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newState()
			s.attachment.Spec.Attacher = gce.Driver
			s.volume.Spec.PersistentVolumeSource, s.nodeID = tt.source, tt.node
			if tt.change != nil {
				tt.change(&s)
			}
			kept, err := gce.reduce(s.volume.DeepCopy())
			if err != nil {
				t.Fatal(err)
			}
			s.volume = kept.(*corev1.PersistentVolume)
			s.spec = &s.volume.Spec
			s.translate(t.Context(), gce.Plugin)
			if got := decide(s, gce); got.action != tt.step {
				t.Errorf("got %+v", got)
			}
			if got := s.published().handle; got != tt.handle {
				t.Errorf("handle to detach is %q", got)
			}
			if s.volume.Spec.CSI != nil {
				t.Error("the PersistentVolume itself was changed")
			}
		})
	}
}
