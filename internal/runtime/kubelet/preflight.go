package kubelet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/freezer"
)

// metadata is what an archive has beside the memory, in bytes, at least.
const metadata = 2 << 20

// preflight checks what can be checked before anything is frozen, and returns the expected
// size of the archive, in bytes.
func (e *Engine) preflight(c runtime.Container) (int64, error) {
	group, err := e.cgroups.OfContainer(c.ID)
	if errors.Is(err, freezer.ErrNotFound) {
		return 0, runtime.Errorf(runtime.ContainerNotRunning, "container %s has ended, or is another one now", c.ID)
	}
	if err != nil {
		return 0, err
	}
	state, err := group.State()
	if err != nil {
		return 0, err
	}
	if state != freezer.Thawed {
		return 0, runtime.WaitErrorf(runtime.Busy, "container %s is paused: something else checkpoints it, "+
			"or has left it frozen", c.ID)
	}
	size, err := e.memoryOf(group)
	if err != nil {
		return 0, fmt.Errorf("reading the memory usage of container %s: %w", c.ID, err)
	}
	return size + metadata, e.checkSpace(size + metadata)
}

// memoryOf returns how much memory a container has that would be in the archive, in bytes.
func (e *Engine) memoryOf(group *freezer.Cgroup) (int64, error) {
	dir, keys := group.Path(), []string{"anon", "shmem"}
	if path, err := filepath.Rel(filepath.Join(e.cgroups.Cgroup, "freezer"), dir); err == nil && filepath.IsLocal(path) {
		dir, keys = filepath.Join(e.cgroups.Cgroup, "memory", path), []string{"total_rss", "total_shmem"}
	}
	text, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return 0, err
	}
	var sum int64
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if key != keys[0] && key != keys[1] {
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// space is the free space of a file system.
type space struct {
	free   int64 // bytes
	device uint64
}

// checkSpace checks that the node has room for the memory four times: CRIU writes it into the
// runtime's temporary directory, and the runtime copies it into its content store, its state
// directory and the archive.
func (e *Engine) checkSpace(size int64) error {
	temp := filepath.Join("/", e.options.Root, e.options.TempDir)
	inTemp, err := e.space(temp)
	if err != nil {
		return fmt.Errorf("reading the free space of %s: %w", temp, err)
	}
	inDir, err := e.space(e.options.checkpointDir())
	if err != nil {
		return fmt.Errorf("reading the free space of %s: %w", e.options.checkpointDir(), err)
	}
	need := 3 * size
	if inTemp.device == inDir.device {
		need = 4 * size
	}
	for _, check := range []struct {
		path string
		free int64
		need int64
	}{{e.options.TempDir, inTemp.free, size}, {e.options.CheckpointDir, inDir.free, need}} {
		if check.free < check.need {
			return runtime.WaitErrorf(runtime.InsufficientNodeDisk, "%s of the node has %d MiB free, a checkpoint of "+
				"%d MiB needs %d MiB there: free space", check.path, check.free>>20, size>>20, check.need>>20)
		}
	}
	return nil
}

// spaceOf returns the free space of the file system of a path, or of where it will be made.
func spaceOf(path string) (space, error) {
	var file unix.Stat_t
	err := unix.Stat(path, &file)
	for errors.Is(err, fs.ErrNotExist) && path != "/" {
		path = filepath.Dir(path)
		err = unix.Stat(path, &file)
	}
	if err != nil {
		return space{}, err
	}
	var system unix.Statfs_t
	if err := unix.Statfs(path, &system); err != nil {
		return space{}, err
	}
	return space{free: int64(system.Bavail) * system.Bsize, device: file.Dev}, nil
}
