package store

import "fmt"

// ValidateRange returns an error if a range is not within an object. Stores use it for
// [Object].NewReader.
func ValidateRange(o Object, offset, length int64) error {
	if offset < 0 || length < 0 || offset > o.Size() || length > o.Size()-offset {
		return fmt.Errorf("%d bytes at %d are not within the %d bytes of the object", length, offset, o.Size())
	}
	return nil
}
