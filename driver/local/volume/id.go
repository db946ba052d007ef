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

// An ID is a prefix, a hash of the name, and the storage in which it was created. IDs
// from before storages were introduced end with the hash. The longest ID has 114
// bytes; the spec allows 128.
const (
	hashForm    = `[0-9a-f]{32}`
	storageForm = `[0-9a-f]{12}(?:-[a-zA-Z0-9](?:[-_.a-zA-Z0-9]{0,61}[a-zA-Z0-9])?)?`
	afterPrefix = hashForm + `(?:-(` + storageForm + `))?$`
)

// IDs become file names, so every ID is checked before it becomes part of a path.
var (
	volumeID   = regexp.MustCompile(`^` + volumePrefix + afterPrefix)
	snapshotID = regexp.MustCompile(`^` + snapshotPrefix + afterPrefix)
	groupID    = regexp.MustCompile(`^` + groupPrefix + afterPrefix)
	anyID      = regexp.MustCompile(`^(?:` + volumePrefix + `|` + snapshotPrefix + `|` + groupPrefix + `)` + afterPrefix)
	storageID  = regexp.MustCompile(`^` + storageForm + `$`)
)

// IsID reports whether id has the format of a volume or snapshot ID.
func IsID(id string) bool { return volumeID.MatchString(id) || snapshotID.MatchString(id) }

// storageOf returns the storage that an ID names, "" for none.
func storageOf(id string) string {
	if found := anyID.FindStringSubmatch(id); found != nil {
		return found[1]
	}
	return ""
}

// memberID returns the ID of a group's snapshot of a volume, in the group's storage.
// The zero byte, which names cannot contain, avoids collisions with IDs of other
// snapshots.
func memberID(group, volume string) string {
	return idFor(snapshotPrefix, storageOf(group), group+"\x00"+volume)
}

// idFor derives an ID from a name: a repeated request finds its volume without a table
// of names, and no character of the name becomes part of a path.
func idFor(prefix, storage, name string) string {
	sum := sha256.Sum256([]byte(name))
	id := prefix + hex.EncodeToString(sum[:16])
	if storage != "" {
		id += "-" + storage
	}
	return id
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
