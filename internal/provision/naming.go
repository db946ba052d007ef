package provision

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// wholeUID is the length that leaves the UID in a volume's name as it is.
	wholeUID = -1
	// uidLength is the length of a UID without its dashes.
	uidLength = 32
)

// volumeName is the same for every try, here and after any restart, as long as
// the flags are. Nothing is found by it: see volumesByClaim and intentName.
func (o *Options) volumeName(claim *corev1.PersistentVolumeClaim) string {
	id := string(claim.UID)
	if o.NameLength != wholeUID {
		id = strings.ReplaceAll(id, "-", "")
		id = id[:min(len(id), o.NameLength)]
	}
	return o.VolumeNamePrefix + "-" + id
}

// truncatesUID tells whether two claims can come to the same name.
func (o *Options) truncatesUID() bool { return o.NameLength != wholeUID && o.NameLength < uidLength }
