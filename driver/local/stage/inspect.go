package stage

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/volume"
)

// Expand grows the device and the filesystem of a staged volume to the volume's size,
// and returns that size in bytes. path is where the volume is staged or published,
// required the expected size, 0 for any.
func (s *Stager) Expand(ctx context.Context, id, path string, required int64) (int64, error) {
	size, err := s.expand(ctx, id, path, required)
	if err != nil {
		return 0, fmt.Errorf("expanding volume %s at %s: %w", id, path, err)
	}
	return size, nil
}

func (s *Stager) expand(ctx context.Context, id, path string, required int64) (int64, error) {
	if err := disk.RequireRoot(); err != nil {
		return 0, err
	}
	unlock, err := s.Store.Lock(ctx, id)
	if err != nil {
		return 0, err
	}
	defer unlock()
	st, err := s.observe(id)
	if err != nil {
		return 0, err
	}
	return st.Size, st.expand(path, required)
}

func (st state) expand(path string, required int64) error {
	if required > st.Size {
		return fmt.Errorf("%w: %d bytes are asked for and the volume has %d; expand it at the controller first", volume.ErrOutOfRange, required, st.Size)
	}
	if len(st.devices) == 0 {
		return fmt.Errorf("%w: it is not staged", ErrNotAtPath)
	}
	filesystems, _, err := st.mountPoints()
	if err != nil {
		return err
	}
	if len(filesystems) == 0 { // a raw device is the same wherever it is shown
		return st.devices[0].Resize()
	}
	device, _, found, err := st.mountAt(path)
	if err == nil && !found {
		err = ErrNotAtPath
	}
	if err != nil {
		return err
	}
	return grow(st.FSType, device, filesystems)
}

// grow uses any writable mount, which need not be the one at the requested path.
func grow(fsType string, device disk.Device, mounts []disk.MountPoint) error {
	if err := device.Resize(); err != nil {
		return err
	}
	if full, err := disk.Fills(fsType, device.Path); err != nil || full {
		return err
	}
	if !disk.CanGrowMounted(fsType) {
		// kubelet reacts to this code by growing the filesystem at the next
		// NodeStageVolume.
		return fmt.Errorf("%w: the kernel grows a mounted %s only for a process with CAP_SYS_RESOURCE, which the driver does not have; the filesystem grows when the volume is staged the next time", volume.ErrInUse, fsType)
	}
	for _, m := range mounts {
		if !m.ReadOnly {
			return disk.GrowMounted(fsType, device, m.Path)
		}
	}
	return fmt.Errorf("%w: it is mounted read-only; its filesystem grows when it is staged for writing", volume.ErrInUse)
}

// Stats is the usage of a volume.
type Stats struct {
	// Usage has all fields for a filesystem, only Bytes for a raw device.
	disk.Usage
	// Block is true for a raw device.
	Block bool
}

// Stats returns the usage of the volume at path, where it is staged or published, or
// ErrNotAtPath. It takes no lock: it is called often and must not wait for a copy.
func (s *Stager) Stats(id, path string) (Stats, error) {
	stats, err := s.stats(id, disk.Resolve(path))
	if err != nil {
		return Stats{}, fmt.Errorf("reading the usage of volume %s at %s: %w", id, path, err)
	}
	return stats, nil
}

func (s *Stager) stats(id, path string) (Stats, error) {
	if err := disk.RequireRoot(); err != nil {
		return Stats{}, err
	}
	st, err := s.observe(id)
	if err != nil {
		return Stats{}, err
	}
	_, _, found, err := st.mountAt(path)
	if err != nil {
		return Stats{}, err
	}
	if found {
		usage, err := disk.UsageOf(path)
		return Stats{Usage: usage}, err
	}
	for _, d := range st.devices {
		nodes, err := d.Nodes()
		if err != nil {
			return Stats{}, err
		}
		for _, n := range nodes {
			if n.Path == path {
				size, err := d.Size()
				return Stats{Usage: disk.Usage{Bytes: size}, Block: true}, err
			}
		}
	}
	return Stats{}, ErrNotAtPath
}

// Health returns the problems of the volume on disk and, if this process is root, of
// its mounted filesystem.
func (s *Stager) Health(id string) ([]volume.Problem, error) {
	problems, err := s.Store.Health(id)
	if err != nil || disk.RequireRoot() != nil {
		return problems, err
	}
	devices, err := disk.Find(s.Store.ImagePath(volume.Volume{ID: id}))
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		mounts, err := d.Mounts()
		if err != nil {
			return nil, err
		}
		if len(mounts) > 0 {
			problems = append(problems, filesystemProblems(mounts[0])...)
		}
	}
	return problems, nil
}

// filesystemProblems returns the problems of a mounted filesystem.
func filesystemProblems(m disk.MountPoint) []volume.Problem {
	// XFS reports a shutdown by failing, ext4 in its mount options.
	if _, err := os.Stat(m.Path); m.ShutDown || errors.Is(err, unix.EIO) {
		return []volume.Problem{{Severity: volume.Inaccessible, Reason: "FilesystemShutDown",
			Message: fmt.Sprintf("The filesystem at %s shut itself down after an error. Stop the workload so that the volume is unmounted and checked.", m.Path)}}
	}
	if m.ErrorReadOnly {
		return []volume.Problem{{Severity: volume.Degraded, Reason: "FilesystemReadOnly",
			Message: fmt.Sprintf("The filesystem at %s went read-only after an error. Stop the workload so that the volume is unmounted and checked.", m.Path)}}
	}
	return nil
}
