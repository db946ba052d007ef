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
		options *Options
		claim   *corev1.PersistentVolumeClaim
		volume  *corev1.PersistentVolume
		asked   bool
	}{
		"the plugin's, when the claim has been handed over": {ebs, handedTo(ebs.Driver), plugins, true},
		"but not before":                      {ebs, handedTo(""), plugins, false},
		"nor when it was handed to another":   {ebs, handedTo("other.example.com"), plugins, false},
		"the driver's own, without that":      {ebs, handedTo(""), drivers, true},
		"another plugin's is not ours":        {ebs, handedTo(ebs.Driver), others, false},
		"a driver that has no plugin's place": {options(), handedTo(driverName), plugins, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.options.mayResize(tt.claim, tt.volume); got != tt.asked {
				t.Errorf("got %v", got)
			}
			if !tt.asked {
				return
			}
			if spec, err := tt.options.csiSpec(t.Context(), tt.volume); err != nil || spec.CSI.VolumeHandle != "vol-1" {
				t.Errorf("the driver is told of %+v, %v", spec, err)
			}
		})
	}
}
