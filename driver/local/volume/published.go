package volume

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Publication is one place where a volume was handed to a workload.
type Publication struct {
	// Block and ReadOnly are how it was handed out.
	Block    bool `json:"block,omitempty"`
	ReadOnly bool `json:"readOnly,omitempty"`
	// Alone is true when no other place may have the volume at the same time.
	Alone bool `json:"alone,omitempty"`
}

func (s *Store) publishedDir() string { return filepath.Join(s.dir, "published") }

// Published returns the places where the volume was handed out, by path. The
// record is made before the mount and removed after it, and mounts do not
// outlive the machine: a place counts only if something is mounted there.
// The caller holds the volume's lock.
func (s *Store) Published(id string) (map[string]Publication, error) {
	places := map[string]Publication{}
	if !volumeID.MatchString(id) {
		return places, nil
	}
	err := readRecord(filepath.Join(s.publishedDir(), id+recordSuffix), &places)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("reading where volume %s is published: %w", id, err)
	}
	return places, nil
}

// SetPublished replaces what Published returns. The caller holds the volume's lock.
func (s *Store) SetPublished(id string, places map[string]Publication) error {
	if !volumeID.MatchString(id) {
		return nil
	}
	path := filepath.Join(s.publishedDir(), id+recordSuffix)
	var err error
	if len(places) == 0 {
		err = s.volumes.tree.remove(path)
	} else {
		err = s.volumes.tree.writeRecord(path, places)
	}
	if err != nil {
		return fmt.Errorf("recording where volume %s is published: %w", id, full(err))
	}
	return nil
}
