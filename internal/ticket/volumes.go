package ticket

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/ephemeral"
	"github.com/holdfast-io/holdfast/internal/mounts"
)

// A Volume is an emptyDir volume of the pod, or its /dev/shm, whose files the Checkpoint has.
type Volume struct {
	// Name is the volume's in the pod, or [ephemeral.SharedMemory].
	Name string `json:"name"`
	// Dir is its directory of the node. That of [ephemeral.SharedMemory] is in the OCI
	// specification of the container.
	Dir string `json:"dir,omitempty"`
	// Exclusive is whether only containers of the Checkpoint have the volume. Then it has the
	// files of the Checkpoint and no others, else also what others have put there.
	Exclusive bool `json:"exclusive,omitempty"`
}

const (
	// volumesDir cannot be the name of a container.
	volumesDir = ".volumes"
	volumeDone = ".done"
	volumeLock = ".lock"
)

func (c *Container) volumesDir() string { return filepath.Join(filepath.Dir(c.dir), volumesDir) }

func (c *Container) volumeFile(name string) string {
	return filepath.Join(c.volumesDir(), filepath.Base(ephemeral.FileName(name)))
}

// KeepVolume takes the files of a volume out of the data directory, for all containers of the
// pod. If they have been put back, they stay so: another container may run with them.
func (c *Container) KeepVolume(name string) error {
	if err := os.MkdirAll(c.volumesDir(), 0o700); err != nil {
		return fmt.Errorf("making a directory for volumes: %w", err)
	}
	to := c.volumeFile(name)
	if _, err := os.Stat(to + volumeDone); err == nil {
		to += volumeDone
	}
	if err := os.Rename(filepath.Join(c.DataDir(), ephemeral.FileName(name)), to); err != nil {
		return fmt.Errorf("keeping the files of the volume %s: %w", name, err)
	}
	return nil
}

// PutBack calls do with the files of a volume, a tar archive, unless another container of the
// pod has put them back, and waits for one that does so now.
func (c *Container) PutBack(name string, do func(archive *os.File) error) error {
	lock, err := os.OpenFile(c.volumeFile(name)+volumeLock, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		defer lock.Close()
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return fmt.Errorf("locking the files of the volume %s: %w", name, err)
	}
	archive, err := os.Open(c.volumeFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(c.volumeFile(name) + volumeDone)
		if err == nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("opening the files of the volume %s: %w", name, err)
	}
	defer archive.Close()
	if err := do(archive); err != nil {
		return fmt.Errorf("putting back the files of the volume %s: %w", name, err)
	}
	if err := os.Rename(c.volumeFile(name), c.volumeFile(name)+volumeDone); err != nil {
		return fmt.Errorf("recording that the files of the volume %s are put back: %w", name, err)
	}
	return nil
}

// RenewVolume has the files of a volume put back once more.
func (c *Container) RenewVolume(name string) error {
	err := os.Rename(c.volumeFile(name)+volumeDone, c.volumeFile(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("preparing the files of the volume %s once more: %w", name, err)
	}
	return nil
}

// RemoveVolumes removes the files of all volumes of the pod.
func (c *Container) RemoveVolumes() error {
	if err := mounts.RemoveAll(c.volumesDir()); err != nil {
		return fmt.Errorf("removing the files of volumes: %w", err)
	}
	return nil
}

// ipcFile has the name of the container with which the System V objects of the pod are
// restored.
const ipcFile = "ipc"

// TakeIPC reports whether the System V objects of the pod are restored with this container: it
// is the first one that is restored.
func (c *Container) TakeIPC() (bool, error) {
	if err := os.MkdirAll(c.volumesDir(), 0o700); err != nil {
		return false, fmt.Errorf("making a directory for volumes: %w", err)
	}
	name := filepath.Join(c.volumesDir(), ipcFile)
	err := os.Symlink(c.container, name) // It is there whole or not at all.
	if err == nil {
		return true, nil
	}
	first, err := os.Readlink(name)
	if err != nil {
		return false, fmt.Errorf("finding out which container has the System V objects of the pod: %w", err)
	}
	return first == c.container, nil
}
