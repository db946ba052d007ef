package runc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

const (
	// spareMemory is room in the tmpfs for images without pages, and for what a container
	// allocates before it is frozen.
	spareMemory = 32 << 20
	// leaveFree is memory of the node that no checkpoint takes.
	leaveFree = 256 << 20
)

// chooseStep takes the fastest step that the node has memory for, and notes why no faster
// one was taken. expected is the memory of the containers in bytes.
func (c *checkpoint) chooseStep(expected int64) error {
	c.step = runtime.Disk
	needed := expected + expected/8 + spareMemory*int64(len(c.targets))
	reason, err := c.whyNotMemory(needed)
	if err != nil || reason != "" {
		c.reason = reason
		return err
	}
	if err := c.mountMemory(needed); err != nil {
		return err
	}
	c.step = runtime.FreezeCopy
	switch {
	case c.request.WithoutFreezeCopy:
		c.step, c.reason = runtime.Tmpfs, "the node's agent does not permit FreezeCopy"
	case !canScanPages():
		c.step, c.reason = runtime.Tmpfs, "FreezeCopy needs Linux 6.7 or newer (PAGEMAP_SCAN)"
	}
	return nil
}

// whyNotMemory returns why the memory of the containers cannot be kept in RAM, "" if it
// can.
func (c *checkpoint) whyNotMemory(needed int64) (string, error) {
	if !c.request.Options.Fast {
		return "the checkpoint does not permit to keep memory in RAM", nil
	}
	used, err := memoryOfOthers(filepath.Dir(c.dir))
	if err != nil {
		return "", err
	}
	available, err := availableMemory()
	if err != nil {
		return "", err
	}
	return whyNotInMemory(needed, used, c.request.MaxMemory, available), nil
}

// whyNotInMemory returns why so many bytes cannot be kept in RAM, "" if they can. Of permitted
// bytes, others have used some, and the node has so many available.
func whyNotInMemory(needed, used, permitted, available int64) string {
	switch {
	case permitted == 0:
		return "the node's agent does not permit to keep memory in RAM"
	case used+needed > permitted:
		return fmt.Sprintf("the memory takes up to %d MiB of RAM; of the %d MiB that checkpoints of the node may take, %d are in use",
			needed>>20, permitted>>20, used>>20)
	case needed+leaveFree > available:
		return fmt.Sprintf("the memory takes up to %d MiB of RAM, and the node has %d MiB available", needed>>20, available>>20)
	default:
		return ""
	}
}

// memoryOfOthers returns the bytes that all checkpoints in a directory keep in RAM.
func memoryOfOthers(stateDir string) (int64, error) {
	dirs, err := filepath.Glob(filepath.Join(stateDir, "*", memoryDir))
	if err != nil {
		return 0, fmt.Errorf("listing checkpoints: %w", err)
	}
	var used int64
	for _, dir := range dirs {
		size, err := usedOf(dir)
		if err != nil {
			return 0, err
		}
		used += size
	}
	return used, nil
}

// usedOf returns the bytes that a tmpfs has of the memory, 0 for any other file system.
func usedOf(dir string) (int64, error) {
	var stat unix.Statfs_t
	err := unix.Statfs(dir, &stat)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil // It was removed.
	}
	if err != nil {
		return 0, fmt.Errorf("reading how much memory %s takes: %w", dir, err)
	}
	if stat.Type != unix.TMPFS_MAGIC {
		return 0, nil
	}
	return int64(stat.Blocks-stat.Bfree) * stat.Bsize, nil
}

// tmpfsOptions are mount options, the best first. Huge pages make a container frozen for a
// fifth less; the kernel needs CONFIG_TRANSPARENT_HUGEPAGE for them. Never to be swapped
// out, it needs to be 6.4 or newer.
var tmpfsOptions = []string{",huge=within_size,noswap", ",huge=within_size", ",noswap", ""}

// mountMemory mounts a tmpfs for the checkpoint, which outlives this process.
func (c *checkpoint) mountMemory(size int64) error {
	return mountTmpfs("holdfast-checkpoint", filepath.Join(c.dir, memoryDir), size)
}

// mountTmpfs makes a directory, and mounts a tmpfs there.
func mountTmpfs(source, dir string, size int64) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("making a directory for the memory: %w", err)
	}
	var err error
	for _, options := range tmpfsOptions {
		err = unix.Mount(source, dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC,
			fmt.Sprintf("size=%d,mode=700%s", size, options))
		if !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("mounting a tmpfs for the memory: %w", err)
	}
	return nil
}

// unmountMemory gives back all memory of a checkpoint.
func unmountMemory(dir string) error {
	err := unix.Unmount(filepath.Join(dir, memoryDir), unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("giving back the memory of a checkpoint: %w", err)
	}
	return nil
}

// prepareImages makes the directory for the images of a container, and for FreezeCopy
// the file for the copy of its memory.
func (c *checkpoint) prepareImages(t *target, index int) error {
	base := t.dir
	t.images = filepath.Join(base, imagesDir)
	leftover := t.images // of a step that failed
	if c.step != runtime.Disk {
		base = filepath.Join(c.dir, memoryDir, strconv.Itoa(index))
		t.images, leftover = filepath.Join(base, imagesDir), base
	}
	if err := os.RemoveAll(leftover); err != nil {
		return fmt.Errorf("removing the images of another step: %w", err)
	}
	if err := os.MkdirAll(t.images, 0o700); err != nil {
		return fmt.Errorf("making a directory for the images: %w", err)
	}
	if c.step != runtime.FreezeCopy {
		return nil
	}
	size := (t.usage.private + t.usage.private/8 + 8<<20) &^ (int64(pageSize) - 1)
	var err error
	t.copied, err = newMemoryCopy(copiedFile(base), size)
	return err
}

// closeCopies ends the copying of memory. It may be called twice.
func (c *checkpoint) closeCopies() error {
	var failed []error
	for _, t := range c.targets {
		if t.copied != nil {
			failed = append(failed, t.copied.close())
			t.copied = nil
		}
	}
	return errors.Join(failed...)
}
