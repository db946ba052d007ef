package runc

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// Names of files of a checkpoint, as checkpointctl, Podman, containerd and CRI-O use them.
const (
	imagesDir      = "checkpoint"
	configDump     = "config.dump"
	specDump       = "spec.dump"
	rootfsDiffFile = "rootfs-diff.tar"
	volumesDir     = "volumes"
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
func (c *checkpoint) finish() ([]record, error) {
	var records []record
	for _, t := range c.targets {
		record, err := c.finishOne(t)
		if err != nil {
			return nil, err
		}
		records = append(records, *record)
	}
	return records, c.closeCopies()
}

func (c *checkpoint) finishOne(t *target) (*record, error) {
	again, err := findTarget(t.Container)
	if err != nil {
		return nil, err
	}
	if again.pid != t.pid || again.start != t.start || again.cgroup.Path() != t.cgroup.Path() {
		return nil, runtime.Errorf(runtime.ContainerNotRunning, "container %s was replaced while it was checkpointed", t.Name)
	}
	if err := t.writeFiles(); err != nil {
		return nil, err
	}
	if err := t.describe(); err != nil {
		return nil, err
	}
	if c.step == runtime.FreezeCopy {
		if t.pages, err = mergeImages(t.images, t.copied, c.dir); err != nil {
			return nil, err
		}
	}
	files, err := t.listFiles(c.dir)
	if err != nil {
		return nil, err
	}
	return &record{Report: c.report(t, files), Files: files}, nil
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

// listFiles lists the files of a container, small ones that describe it first. base is the
// directory to which parts are relative.
func (t *target) listFiles(base string) ([]fileRecord, error) {
	var files []fileRecord
	for prefix, dir := range map[string]string{"": t.dir, imagesDir: t.images, volumesDir: filepath.Join(t.dir, volumesDir)} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) && prefix == volumesDir {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing the files of the checkpoint: %w", err)
		}
		for _, entry := range entries {
			if entry.IsDir() {
				continue // the images and the volumes
			}
			file, err := t.fileRecord(base, filepath.Join(dir, entry.Name()))
			if err != nil {
				return nil, err
			}
			file.Name = filepath.Join(prefix, entry.Name())
			files = append(files, *file)
		}
	}
	slices.SortFunc(files, func(a, b fileRecord) int {
		return cmp.Or(filepathDepth(a.Name)-filepathDepth(b.Name), strings.Compare(a.Name, b.Name))
	})
	return files, nil
}

func (t *target) fileRecord(base, name string) (*fileRecord, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, fmt.Errorf("reading a file of the checkpoint: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	relative, err := filepath.Rel(base, name)
	if err != nil {
		return nil, fmt.Errorf("naming a file of the checkpoint: %w", err)
	}
	file := &fileRecord{Size: info.Size(), Mode: 0o600, Parts: []part{{Path: relative, Length: info.Size()}}}
	if parts, ok := t.pages[info.Name()]; ok && filepath.Dir(name) == t.images {
		file.Size, file.Parts = 0, parts
		for _, p := range parts {
			file.Size += p.Length
		}
	}
	return file, nil
}

func filepathDepth(name string) int {
	if filepath.Dir(name) == "." && name != rootfsDiffFile {
		return 0
	}
	return 1
}

// report says how a container was checkpointed.
func (c *checkpoint) report(t *target, files []fileRecord) runtime.Report {
	report := runtime.Report{
		Container:  t.Container,
		Engine:     Name,
		Capability: *c.request.Capability,
		Step:       c.step,
		Reason:     c.reason,
		ImageName:  t.imageName(),
		Volumes:    t.volumeNames(),
		FrozenAt:   t.frozenAt,
		Frozen:     t.frozen,
		Exact:      true,
	}
	for _, file := range files {
		report.Bytes += file.Size
	}
	return report
}
