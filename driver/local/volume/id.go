package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"unicode"
	"unicode/utf8"
)

const (
	volumePrefix   = "vol-"
	snapshotPrefix = "snap-"
	groupPrefix    = "grp-"
	// maxName is the general size limit of strings in the CSI spec, in bytes.
	maxName = 128
)

// IDs become file names, so nothing else is let near a path.
var (
	volumeID   = regexp.MustCompile(`^vol-[0-9a-f]{32}$`)
	snapshotID = regexp.MustCompile(`^snap-[0-9a-f]{32}$`)
	groupID    = regexp.MustCompile(`^grp-[0-9a-f]{32}$`)
)

// memberID is the ID of a group's snapshot of a volume. The zero byte keeps it
// apart from those of all names, which have none.
func memberID(group, volume string) string {
	return idFor(snapshotPrefix, group+"\x00"+volume)
}

// idFor derives an ID from a name: the same request finds its volume again
// without a table of names, and no character of the name reaches a path.
func idFor(prefix, name string) string {
	sum := sha256.Sum256([]byte(name))
	return prefix + hex.EncodeToString(sum[:16])
}

// checkName applies the spec's rules on names (CreateVolumeRequest.name).
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: the name is missing", ErrInvalid)
	case len(name) > maxName:
		return fmt.Errorf("%w: the name has %d bytes and %d are allowed", ErrInvalid, len(name), maxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: the name is not valid UTF-8", ErrInvalid)
	}
	for _, r := range name {
		if unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' {
			return fmt.Errorf("%w: the name has the control character %U", ErrInvalid, r)
		}
	}
	return nil
}
