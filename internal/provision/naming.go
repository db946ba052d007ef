package provision

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// wholeUID is the length for the whole UID with dashes.
	wholeUID = -1
	// uidLength is the length of a UID without its dashes.
	uidLength = 32
)

// volumeName returns the name of a claim's volume. It stays the same as long as the flags
// do. Volumes and operations are found by the claim's UID and never by this name.
func (o *Options) volumeName(claim *corev1.PersistentVolumeClaim) string {
	id := string(claim.UID)
	if o.NameLength != wholeUID {
		id = strings.ReplaceAll(id, "-", "")
		id = id[:min(len(id), o.NameLength)]
	}
	return o.VolumeNamePrefix + "-" + id
}

// truncatesUID reports whether the volumes of two claims can get the same name.
func (o *Options) truncatesUID() bool { return o.NameLength != wholeUID && o.NameLength < uidLength }
