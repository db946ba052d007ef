package attach

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// Annotations of a VolumeAttachment that are written before the driver is called.
// Upstream's csi-attacher writes the same node annotation, and no other.
const (
	nodeAnnotation   = "csi.alpha.kubernetes.io/node-id"
	handleAnnotation = "attach.holdfast.io/volume-handle"
	secretAnnotation = "attach.holdfast.io/secret" // NAMESPACE/NAME
)

// record has what a detachment sends to the driver.
type record struct {
	handle string
	nodeID string
	secret *corev1.SecretReference // nil for none
}

// recordOf reads the record of a VolumeAttachment. Fields that are not recorded
// are empty.
func recordOf(a *storagev1.VolumeAttachment) record {
	r := record{handle: a.Annotations[handleAnnotation], nodeID: a.Annotations[nodeAnnotation]}
	if namespace, name, ok := strings.Cut(a.Annotations[secretAnnotation], "/"); ok {
		r.secret = &corev1.SecretReference{Namespace: namespace, Name: name}
	}
	return r
}

// annotations returns the record as annotations.
func (r record) annotations() map[string]string {
	all := map[string]string{nodeAnnotation: r.nodeID, handleAnnotation: r.handle}
	if r.secret != nil {
		all[secretAnnotation] = r.secret.Namespace + "/" + r.secret.Name
	}
	return all
}

// differsFrom reports whether the record has another volume or another node
// than what is to be published now.
func (r record) differsFrom(desired record) bool {
	return r.nodeID != "" && r.nodeID != desired.nodeID || r.handle != "" && r.handle != desired.handle
}

// isSame reports whether two records have the same volume and node.
func (r record) isSame(other record) bool {
	return r.handle == other.handle && r.nodeID == other.nodeID
}

// covers reports whether everything that is to be published now is on record.
func (r record) covers(desired record) bool {
	return r.nodeID == desired.nodeID && r.handle == desired.handle &&
		(desired.secret == nil || r.secret != nil && *r.secret == *desired.secret)
}
