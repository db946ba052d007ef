package runc

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// Names of files of a checkpoint, as checkpointctl, Podman, containerd and CRI-O use them.
const (
	imagesDir      = "checkpoint"
	configDump     = "config.dump"
	specDump       = "spec.dump"
	rootfsDiffFile = "rootfs-diff.tar"
)

// A configDumpFile describes a container to checkpointctl (lib/metadata.go there).
type configDumpFile struct {
	ID              string    `json:"id"`
	Name            string    `json:"name"`
	RootfsImageName string    `json:"rootfsImageName,omitempty"`
	Runtime         string    `json:"runtime,omitempty"`
	Created         time.Time `json:"createdTime"`
	Checkpointed    time.Time `json:"checkpointedTime"`
	Restored        time.Time `json:"restoredTime"`
	IsRestored      bool      `json:"restored"`
}

// finish completes the checkpoint of containers that run again, and checks that they still
// are the ones that it is of.
func (c *checkpoint) finish(capability *runtime.Capability) ([]record, error) {
	var records []record
	for i, t := range c.targets {
		again, err := findTarget(t.Container)
		if err != nil {
			return nil, err
		}
		if again.pid != t.pid || again.start != t.start || again.freezer != t.freezer {
			return nil, runtime.Errorf(runtime.ContainerNotRunning, "container %s was replaced while it was checkpointed", t.Name)
		}
		if err := c.layers[i].write(filepath.Join(t.dir, rootfsDiffFile)); err != nil {
			return nil, err
		}
		c.layers[i].staged.Close()
		if err := t.describe(); err != nil {
			return nil, err
		}
		files, err := t.listFiles(c.dir)
		if err != nil {
			return nil, err
		}
		records = append(records, record{Report: c.report(t, capability, files), Files: files})
	}
	return records, nil
}

// describe writes the files that describe the container.
func (t *target) describe() error {
	spec, err := os.ReadFile(filepath.Join(t.bundle, specFile))
	if err != nil {
		return fmt.Errorf("reading the OCI specification: %w", err)
	}
	if err := writeSynced(filepath.Join(t.dir, specDump), spec); err != nil {
		return err
	}
	return writeJSON(filepath.Join(t.dir, configDump), configDumpFile{
		ID: t.ID, Name: t.Name, RootfsImageName: t.imageName(), Runtime: t.binary,
		Created: t.created, Checkpointed: t.frozenAt,
	})
}

// listFiles lists the files of a container, small ones that describe it first.
func (t *target) listFiles(base string) ([]fileRecord, error) {
	var files []fileRecord
	err := filepath.WalkDir(t.dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", name)
		}
		relative, err := filepath.Rel(t.dir, name)
		if err != nil {
			return err
		}
		inCheckpoint, err := filepath.Rel(base, name)
		if err != nil {
			return err
		}
		files = append(files, fileRecord{Name: relative, Size: info.Size(), Mode: 0o600,
			Parts: []part{{Path: inCheckpoint, Length: info.Size()}}})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the files of the checkpoint: %w", err)
	}
	slices.SortStableFunc(files, func(a, b fileRecord) int { return filepathDepth(a.Name) - filepathDepth(b.Name) })
	return files, nil
}

func filepathDepth(name string) int {
	if filepath.Dir(name) == "." && name != rootfsDiffFile {
		return 0
	}
	return 1
}

// report says how a container was checkpointed.
func (c *checkpoint) report(t *target, capability *runtime.Capability, files []fileRecord) runtime.Report {
	report := runtime.Report{
		Container:  t.Container,
		Engine:     Name,
		Capability: *capability,
		Step:       c.step,
		Reason:     c.reason,
		ImageName:  t.imageName(),
		FrozenAt:   t.frozenAt,
		Frozen:     t.frozen,
		Exact:      true,
	}
	for _, file := range files {
		report.Bytes += file.Size
	}
	return report
}
