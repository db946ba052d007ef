package volume

import (
	"errors"
	"fmt"
	"os"
)

// Severity tells how bad a problem is. The order is that of CSI's
// VolumeHealthErrorType.
type Severity int

// The severities of a problem.
const (
	// Degraded volumes work, but not as they should.
	Degraded Severity = iota + 1
	// Inaccessible volumes cannot be used; their data may be whole.
	Inaccessible
	// DataLoss is permanent.
	DataLoss
)

// Problem is something wrong with a volume.
type Problem struct {
	Severity Severity
	// Reason is one CamelCase word for machines.
	Reason string
	// Message says what is wrong and what can be done.
	Message string
}

// Health returns what is wrong with the volume as it lies on disk, ErrNotFound
// if there is no such volume.
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
