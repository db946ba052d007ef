package resize

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// isOurs tells whether a volume is the driver's, or one of the plugin whose place
// it has taken.
func (o *Options) isOurs(volume *corev1.PersistentVolume) bool {
	return volume.Spec.CSI != nil && volume.Spec.CSI.Driver == o.Driver || o.Plugin.HasVolume(volume)
}

// mayResize tells whether a claim's volume is for this program to work on. One of a
// plugin is when the expand controller of Kubernetes has handed its claim over:
// before, it might be working on it itself (KEP-625).
func (o *Options) mayResize(claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) bool {
	if !o.isOurs(volume) {
		return false
	}
	return volume.Spec.CSI != nil || claim.Annotations[kube.AnnStorageResizer] == o.Driver
}

// csiSpec is a volume as the driver is told of it. What is written stays in the
// form in which users know it.
func (o *Options) csiSpec(ctx context.Context, volume *corev1.PersistentVolume) (*corev1.PersistentVolumeSpec, error) {
	translated, err := o.Plugin.ToCSI(ctx, volume)
	if err != nil {
		return nil, err
	}
	return &translated.Spec, nil
}
