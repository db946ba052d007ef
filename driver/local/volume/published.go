package volume

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Publication is one target path at which a volume is published.
type Publication struct {
	// Block and ReadOnly are the parameters of the publication.
	Block    bool `json:"block,omitempty"`
	ReadOnly bool `json:"readOnly,omitempty"`
	// Exclusive is true if the volume may have no other target path at the same time.
	Exclusive bool `json:"alone,omitempty"`
}

// publishedDir has a subdirectory per node if nodes share the data directory: a path
// of one node means nothing on another.
func (s *Store) publishedDir() string { return filepath.Join(s.dir, "published", s.node) }

// Published returns the recorded publications of the volume, by target path. They are
// recorded before the mount and removed after it, and mounts do not survive a reboot:
// a publication counts only if something is mounted at its path. The caller has the
// volume's lock.
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

// SetPublished replaces the recorded publications. The caller has the volume's lock.
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

// deletePublished removes the publication records of a volume that is being deleted.
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
