package resize

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// claimsByClass indexes claims by the VolumeAttributesClasses that they wait
// for.
const claimsByClass = "resize.class"

// pendingClasses returns the VolumeAttributesClasses that a claim waits for.
func pendingClasses(o client.Object) []string {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	var classes []string
	if desired := ptr.Deref(claim.Spec.VolumeAttributesClassName, ""); desired != "" && desired != ptr.Deref(claim.Status.CurrentVolumeAttributesClassName, "") {
		classes = append(classes, desired)
	}
	if record := claim.Status.ModifyVolumeStatus; record != nil && (len(classes) == 0 || classes[0] != record.TargetVolumeAttributesClassName) {
		classes = append(classes, record.TargetVolumeAttributesClassName)
	}
	return classes
}
