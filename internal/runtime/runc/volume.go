package runc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/ephemeral"
	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A volume is a directory of the pod that is copied together with a container.
type volume struct {
	runtime.Volume
	*layer
}

// errTooLarge means that a directory has more than its limit.
var errTooLarge = errors.New("it has more than its limit")

// stageVolumes copies the volumes of a container while it runs.
func (t *target) stageVolumes(options runtime.Options) error {
	for _, v := range options.Volumes {
		if v.Container != t.Name {
			continue
		}
		if v.Name == ephemeral.SharedMemory {
			if v.Dir = t.sharedMemory; v.Dir == "" {
				continue // CRIU saves it with the container.
			}
		}
		added, err := newVolume(v, t.dir, options.VolumeLimit)
		if err != nil {
			return err
		}
		t.volumes = append(t.volumes, added)
		if err := added.scan(); err != nil {
			return err
		}
	}
	return nil
}

// newVolume returns a copy of a volume that keeps contents in a file of the file system of a
// directory.
func newVolume(v runtime.Volume, into string, limit int64) (*volume, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(v.Dir, &stat); err != nil {
		return nil, fmt.Errorf("finding the volume %s: %w", v.Name, err)
	}
	// The kernel does not set the times of a file in a tmpfs when it is written by a mapping.
	l := &layer{dir: v.Dir, timeless: stat.Type == unix.TMPFS_MAGIC, limit: limit}
	return &volume{Volume: v, layer: l}, l.open(into)
}

// scan brings the copy up to date.
func (v *volume) scan() error {
	err := v.layer.scan()
	if errors.Is(err, errTooLarge) {
		return runtime.Errorf(runtime.VolumeTooLarge,
			"the volume %s has more than %d MiB of files; set ephemeralVolumes.sizeLimit to more, or to 0 to leave such volumes out", v.Name, v.limit>>20)
	}
	return err
}

// write writes the archive of the last scan into a directory.
func (v *volume) write(dir string) error {
	name := filepath.Join(dir, ephemeral.FileName(v.Name))
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("making a directory for the volumes: %w", err)
	}
	return v.layer.write(name)
}

// scanFiles brings the copies of the root file system and of all volumes up to date.
func (t *target) scanFiles() error {
	if err := t.layer.scan(); err != nil {
		return err
	}
	for _, v := range t.volumes {
		if err := v.scan(); err != nil {
			return err
		}
	}
	return nil
}

// setFrozen prepares the scan while the container is frozen and has mapped files.
func (t *target) setFrozen(mapped mappedFiles) {
	t.layer.frozen, t.layer.mapped = true, mappedFiles{paths: mapped.paths}
	for _, v := range t.volumes {
		v.frozen, v.mapped = true, mappedFiles{inodes: mapped.inodes}
	}
}

// writeFiles writes the archives of the root file system and of all volumes.
func (t *target) writeFiles() error {
	if err := t.layer.write(filepath.Join(t.dir, rootfsDiffFile)); err != nil {
		return err
	}
	for _, v := range t.volumes {
		if err := v.write(t.dir); err != nil {
			return err
		}
	}
	return nil
}

func (t *target) closeFiles() {
	if t.layer != nil {
		t.layer.staged.Close()
	}
	for _, v := range t.volumes {
		v.staged.Close()
	}
}

func (t *target) volumeNames() []string {
	var names []string
	for _, v := range t.volumes {
		names = append(names, v.Name)
	}
	return names
}

// A mountSpec is a mount of an OCI specification.
type mountSpec struct {
	Destination string   `json:"destination"`
	Source      string   `json:"source"`
	Options     []string `json:"options"`
}

// sharedMemoryOf returns the directory of the node that is mounted at /dev/shm, "" if none is.
func sharedMemoryOf(mounts []mountSpec) string {
	for _, m := range mounts {
		isBind := slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		if m.Destination == ephemeral.SharedMemory && isBind {
			return m.Source
		}
	}
	return ""
}
