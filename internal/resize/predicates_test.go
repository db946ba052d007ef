package resize

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/migrate"
)

func TestInTreeVolumesAreTranslated(t *testing.T) {
	ebs := &Options{Driver: "ebs.csi.aws.com", Plugin: migrate.ForDriver("ebs.csi.aws.com")}
	handedTo := func(driver string) *corev1.PersistentVolumeClaim {
		claim := &corev1.PersistentVolumeClaim{}
		if driver != "" {
			claim.Annotations = map[string]string{kube.AnnStorageResizer: driver}
		}
		return claim
	}
	of := func(source corev1.PersistentVolumeSource) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: source}}
	}
	plugins := of(corev1.PersistentVolumeSource{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: "vol-1"}})
	drivers := of(corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: ebs.Driver, VolumeHandle: "vol-1"}})
	others := of(corev1.PersistentVolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "disk"}})
	tests := map[string]struct {
		options   *Options
		claim     *corev1.PersistentVolumeClaim
		volume    *corev1.PersistentVolume
		mayResize bool
	}{
		"an in-tree volume whose claim was handed over to the driver":     {ebs, handedTo(ebs.Driver), plugins, true},
		"an in-tree volume whose claim was not handed over":               {ebs, handedTo(""), plugins, false},
		"an in-tree volume whose claim was handed over to another driver": {ebs, handedTo("other.example.com"), plugins, false},
		"a CSI volume of the driver":                                      {ebs, handedTo(""), drivers, true},
		"a volume of another in-tree plugin":                              {ebs, handedTo(ebs.Driver), others, false},
		"an in-tree volume and a driver that replaces no plugin":          {options(), handedTo(driverName), plugins, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.options.mayResize(tt.claim, tt.volume); got != tt.mayResize {
				t.Errorf("got %v", got)
			}
			if !tt.mayResize {
				return
			}
			if spec, err := tt.options.csiSpec(t.Context(), tt.volume); err != nil || spec.CSI.VolumeHandle != "vol-1" {
				t.Errorf("got %+v, %v", spec, err)
			}
		})
	}
}
