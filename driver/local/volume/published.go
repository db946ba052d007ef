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
	// Exclusive is true when no other place may have the volume at the same time.
	Exclusive bool `json:"alone,omitempty"`
}

// publishedDir is a folder for each node where nodes share the data directory:
// paths of one mean nothing on another.
func (s *Store) publishedDir() string { return filepath.Join(s.dir, "published", s.node) }

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
		err = s.volumes.files.remove(path)
	} else {
		err = s.volumes.files.writeRecord(path, places)
	}
	if err != nil {
		return fmt.Errorf("recording where volume %s is published: %w", id, wrapNoSpace(err))
	}
	return nil
}

// deletePublished removes what is on record of the use of a volume that goes.
func (s *Store) deletePublished(id string) error {
	records := []string{filepath.Join(s.publishedDir(), id+recordSuffix), s.attachedRecord(id)}
	if s.shared {
		of, err := filepath.Glob(filepath.Join(s.dir, "published", "*", id+recordSuffix))
		if err != nil {
			return err
		}
		records = append(records, of...)
	}
	for _, path := range records {
		if err := s.volumes.files.remove(path); err != nil {
			return err
		}
	}
	return nil
}
