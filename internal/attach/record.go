package attach

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// What is on record at a VolumeAttachment before the driver is asked. The node
// is where upstream's csi-attacher keeps it; it keeps nothing else.
const (
	nodeAnnotation   = "csi.alpha.kubernetes.io/node-id"
	handleAnnotation = "attach.holdfast.io/volume-handle"
	secretAnnotation = "attach.holdfast.io/secret" // NAMESPACE/NAME
)

// record is what a detachment needs, as it is given to the driver.
type record struct {
	handle string
	nodeID string
	secret *corev1.SecretReference // nil for none
}

// recordOf reads what is on record; fields that are not are empty.
func recordOf(a *storagev1.VolumeAttachment) record {
	r := record{handle: a.Annotations[handleAnnotation], nodeID: a.Annotations[nodeAnnotation]}
	if namespace, name, ok := strings.Cut(a.Annotations[secretAnnotation], "/"); ok {
		r.secret = &corev1.SecretReference{Namespace: namespace, Name: name}
	}
	return r
}

// annotations are the record in writing.
func (r record) annotations() map[string]string {
	all := map[string]string{nodeAnnotation: r.nodeID, handleAnnotation: r.handle}
	if r.secret != nil {
		all[secretAnnotation] = r.secret.Namespace + "/" + r.secret.Name
	}
	return all
}

// differsFrom tells whether what is on record may have been published as another
// volume, or on another node, than what is to be published now.
func (r record) differsFrom(desired record) bool {
	return r.nodeID != "" && r.nodeID != desired.nodeID || r.handle != "" && r.handle != desired.handle
}

// isSame tells whether two records are of one volume on one node.
func (r record) isSame(other record) bool {
	return r.handle == other.handle && r.nodeID == other.nodeID
}

// covers tells whether all of what is to be published now is on record.
func (r record) covers(desired record) bool {
	return r.nodeID == desired.nodeID && r.handle == desired.handle &&
		(desired.secret == nil || r.secret != nil && *r.secret == *desired.secret)
}
