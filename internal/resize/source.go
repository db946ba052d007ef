package resize

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// isOurs reports whether a volume belongs to the driver, or to the in-tree
// plugin that the driver replaces.
func (o *Options) isOurs(volume *corev1.PersistentVolume) bool {
	return volume.Spec.CSI != nil && volume.Spec.CSI.Driver == o.Driver || o.Plugin.HasVolume(volume)
}

// mayResize reports whether this controller may resize a claim's volume. For an
// in-tree volume, the expand controller of Kubernetes must have handed over the
// claim: before, it may be working on it itself (KEP-625).
func (o *Options) mayResize(claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) bool {
	if !o.isOurs(volume) {
		return false
	}
	return volume.Spec.CSI != nil || claim.Annotations[kube.AnnStorageResizer] == o.Driver
}

// csiSpec returns the volume's spec in CSI form, for calls to the driver only.
// API objects keep their in-tree form.
func (o *Options) csiSpec(ctx context.Context, volume *corev1.PersistentVolume) (*corev1.PersistentVolumeSpec, error) {
	translated, err := o.Plugin.ToCSI(ctx, volume)
	if err != nil {
		return nil, err
	}
	return &translated.Spec, nil
}
