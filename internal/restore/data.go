package restore

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/mounts"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// Memory keeps images of restores in RAM of the node.
type Memory interface {
	// HoldImages mounts a tmpfs on a directory in dir, and makes files in it that have nothing
	// but zeros, by their sizes; small is the size of all others. It returns why it did not.
	HoldImages(ctx context.Context, restoreDir, dir string, files map[string]int64, small int64) (string, error)
}

// largeFile is the size of files whose memory must not be the agent's own, in bytes.
const largeFile = 1 << 20

// remove removes a directory of restores with all that is mounted in it, for all containers
// that see it.
func (r *Reconciler) remove(dir string) error {
	remove := func() error { return mounts.RemoveAll(dir) }
	if r.options.HostPID == 0 {
		return remove()
	}
	return mounts.In(r.options.HostPID, remove)
}

// removeData removes the memory of a checkpoint from the node.
func (r *Reconciler) removeData(c *container) error {
	if err := r.remove(c.place.DataDir()); err != nil {
		return fmt.Errorf("removing the data of container %s: %w", c.name, err)
	}
	return nil
}

// hold takes RAM for the images of a container, so that its memory is not copied to disk
// first. It notes why it did not.
func (r *Reconciler) hold(ctx context.Context, s *state, f *fetch) error {
	switch {
	case r.options.Memory == nil:
		f.onDisk = "no engine of the node keeps it in RAM"
		return nil
	case s.policy.OnRestart == v1alpha1.OnRestartRestore:
		f.onDisk = "it is kept for further restores"
		return nil
	}
	files, small := imagesOf(f.reader.Files())
	reason, err := r.options.Memory.HoldImages(ctx, r.options.Dir, f.container.place.ImagesDir(), files, small)
	switch {
	case err != nil:
		f.onDisk = err.Error()
	case reason != "":
		f.onDisk = reason
	case !isMemory(f.container.place.ImagesDir()):
		f.onDisk = "what is mounted on the node is not seen by the agent"
	default:
		f.prepared = map[string]int64{}
		for name, size := range files {
			f.prepared[ticket.ImagesName+"/"+name] = size
		}
		return nil
	}
	// Whoever sees another directory than the agent would restore zeros.
	return r.remove(f.container.place.ImagesDir())
}

// imagesOf returns the large images of a checkpoint by their names in the directory of images,
// and the size of the small ones.
func imagesOf(all []archive.FileInfo) (large map[string]int64, small int64) {
	large = map[string]int64{}
	for _, file := range all {
		name, isImage := strings.CutPrefix(file.Name, ticket.ImagesName+"/")
		switch {
		case isImage && file.Size >= largeFile:
			large[name] = file.Size
		case isImage:
			small += file.Size
		}
	}
	return large, small
}

// isMemory reports whether a directory is a tmpfs.
func isMemory(dir string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(dir, &stat) == nil && stat.Type == unix.TMPFS_MAGIC
}

// sizeOnDisk returns how many bytes of a fetch need room on disk.
func (f *fetch) sizeOnDisk() (size int64) {
	for _, file := range f.reader.Files() {
		if f.prepared == nil || !strings.HasPrefix(file.Name, ticket.ImagesName+"/") {
			size += file.Size
		}
	}
	return size
}
