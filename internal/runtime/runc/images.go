package runc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/mounts"
)

// restoreSource is the source of a tmpfs with images that are to be restored.
const restoreSource = "holdfast-restore"

// An imagesRequest asks a worker for memory of the node for images that are to be restored.
type imagesRequest struct {
	// Dir is where the tmpfs is mounted. Files are the sizes of the files to be in it.
	Dir   string
	Files map[string]int64
	// Small is the size of all other files. MaxMemory is that of [Config], and StateDir, too.
	Small, MaxMemory int64
	StateDir         string
	// RestoreDir is the directory of all restores.
	RestoreDir string
}

// HoldImages mounts a tmpfs on a directory in restoreDir, and makes the files in it, by their
// sizes; small is how large all other files are going to be. It returns why it did not, "" if
// it did. The memory is the node's, and not the agent's: the kernel charges it to whoever is the
// first to write to it, and that is the worker.
func (e *Engine) HoldImages(ctx context.Context, restoreDir, dir string, files map[string]int64, small int64) (string, error) {
	// One after another: each sees what the others have taken.
	e.images.Lock()
	defer e.images.Unlock()
	text, err := json.Marshal(imagesRequest{
		Dir: dir, Files: files, Small: small, MaxMemory: e.config.MaxMemory, StateDir: e.config.StateDir, RestoreDir: restoreDir,
	})
	if err != nil {
		return "", fmt.Errorf("asking for memory: %w", err)
	}
	answer, err := e.call(ctx, "images", string(text))
	switch {
	case err != nil:
		return "", fmt.Errorf("asking for memory: %w", err)
	case answer.Error != nil:
		return "", answer.Error.toError()
	}
	return answer.Reason, nil
}

// HostPID is a process in the node's own namespaces.
func (e *Engine) HostPID() int { return e.config.HostPID }

// holdImages is the worker's part of HoldImages.
func holdImages(argument string) (string, error) {
	var request imagesRequest
	if err := json.Unmarshal([]byte(argument), &request); err != nil {
		return "", fmt.Errorf("reading the request: %w", err)
	}
	if err := joinFirstProcess(); err != nil {
		return "", err
	}
	needed := request.Small + spareMemory
	for _, size := range request.Files {
		needed += size
	}
	used, err := request.used()
	if err != nil {
		return "", err
	}
	available, err := availableMemory()
	if err != nil {
		return "", err
	}
	if reason := whyNotInMemory(needed, used, request.MaxMemory, available); reason != "" {
		return reason, nil
	}
	if err := request.hold(needed); err != nil {
		return "", errors.Join(err, mounts.RemoveAll(request.Dir))
	}
	return "", nil
}

// used returns the bytes of RAM that checkpoints and restores of the node have.
func (r *imagesRequest) used() (int64, error) {
	used, err := memoryOfOthers(r.StateDir)
	if err != nil {
		return 0, err
	}
	points, err := mounts.Below(r.RestoreDir)
	if err != nil {
		return 0, err
	}
	for _, point := range points {
		size, err := usedOf(point)
		if err != nil {
			return 0, err
		}
		used += size
	}
	return used, nil
}

// hold mounts the tmpfs, and makes the files.
func (r *imagesRequest) hold(size int64) error {
	if err := mountTmpfs(restoreSource, r.Dir, size); err != nil {
		return err
	}
	root, err := os.OpenRoot(r.Dir)
	if err != nil {
		return fmt.Errorf("opening the tmpfs: %w", err)
	}
	defer root.Close()
	for name, size := range r.Files {
		if err := allocate(root, name, size); err != nil {
			return fmt.Errorf("taking memory for %s: %w", name, err)
		}
	}
	return nil
}

func allocate(root *os.Root, name string, size int64) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(file.Fd()), 0, 0, size), file.Close())
}
