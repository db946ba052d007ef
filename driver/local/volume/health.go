package volume

import (
	"errors"
	"fmt"
	"os"
)

// Severity is the severity of a problem, in the order of CSI's VolumeHealthErrorType.
type Severity int

// The severities of a problem.
const (
	// Degraded volumes work, but not as they should.
	Degraded Severity = iota + 1
	// Inaccessible volumes cannot be used; their data may be intact.
	Inaccessible
	// DataLoss volumes have lost data permanently.
	DataLoss
)

// Problem is something wrong with a volume.
type Problem struct {
	Severity Severity
	// Reason is a CamelCase word for programs.
	Reason string
	// Message describes the problem and what the administrator can do.
	Message string
}

// Health returns the problems of the volume's files on disk, or ErrNotFound if there
// is no such volume.
func (s *Store) Health(id string) ([]Problem, error) {
	v, err := s.volumes.get(id)
	if errors.Is(err, ErrDamaged) {
		return []Problem{{Inaccessible, "RecordDamaged", err.Error()}}, nil
	}
	if err != nil {
		return nil, err
	}
	image := s.volumes.image(id)
	info, err := os.Stat(image)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return []Problem{{DataLoss, "ImageMissing",
			fmt.Sprintf("The image %s is gone. Put it back from a backup, or delete the volume and restore a snapshot.", image)}}, nil
	case err != nil:
		return []Problem{{Inaccessible, "ImageUnreadable",
			fmt.Sprintf("The image cannot be reached: %v. Check the disk that holds %s.", err, s.dir)}}, nil
	case info.Size() < v.Size:
		return []Problem{{DataLoss, "ImageCutOff",
			fmt.Sprintf("The image %s has %d bytes and must have %d. Put it back from a backup, or delete the volume and restore a snapshot.", image, info.Size(), v.Size)}}, nil
	}
	return nil, nil
}
