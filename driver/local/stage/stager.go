package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/volume"
)

// Errors of the stager, in addition to those of package volume and
// disk.ErrUnprivileged.
var (
	// ErrConflictingUse reports a path or volume that is already in use in another way
	// than requested.
	ErrConflictingUse = errors.New("in use in another way")
	// ErrUnusable reports a use that the volume was not created for or is not ready
	// for.
	ErrUnusable = errors.New("cannot be used like this")
	// ErrNotAtPath reports a path at which the volume is not staged or published.
	ErrNotAtPath = errors.New("the volume is not at this path")
)

// Stager implements the CSI node service for the volumes of Store.
type Stager struct {
	Store *volume.Store
}

// Use describes how a volume is used.
type Use struct {
	// VolumeID is the volume.
	VolumeID string
	// Block asks for the raw device instead of a filesystem.
	Block bool
	// FSType is the requested filesystem, "" for the volume's.
	FSType string
	// Token is the token of the attachment, for shared stores.
	Token string
}

// state is the observed state of a volume, under its lock.
type state struct {
	volume.Volume
	image   string
	devices []disk.Device
	// attached is this node's attachment, zero if the store is not shared.
	attached volume.Attachment
}

// lockForUse locks the volume and observes its state. It fails if the volume has lost
// data, because using it would make that worse, and if it is not attached to this node
// with the given token.
func (s *Stager) lockForUse(ctx context.Context, u Use) (state, func(), error) {
	if err := disk.RequireRoot(); err != nil {
		return state{}, nil, err
	}
	unlock, err := s.Store.Lock(ctx, u.VolumeID)
	if err != nil {
		return state{}, nil, err
	}
	st, err := s.observe(u.VolumeID)
	if err == nil {
		err = u.checkAccess(st.Volume)
	}
	if err == nil {
		st.attached, err = s.Store.AttachedToThisNode(u.VolumeID, u.Token)
	}
	if err != nil {
		unlock()
		return state{}, nil, err
	}
	return st, unlock, nil
}

func (s *Stager) observe(id string) (state, error) {
	problems, err := s.Store.Health(id)
	if err != nil {
		return state{}, err
	}
	for _, p := range problems {
		return state{}, fmt.Errorf("%w: %s", volume.ErrDamaged, p.Message)
	}
	v, err := s.Store.Volume(id)
	if err != nil {
		return state{}, err
	}
	image := s.Store.ImagePath(v)
	devices, err := disk.Find(image)
	return state{Volume: v, image: image, devices: devices}, err
}

// checkAccess returns an error unless the volume was created for this use.
func (u Use) checkAccess(v volume.Volume) error {
	switch {
	case u.Block && !v.Access.Block:
		return fmt.Errorf("%w: it was made for use as a filesystem, not as a raw device", ErrUnusable)
	case !u.Block && !v.Access.Mount:
		return fmt.Errorf("%w: it was made for use as a raw device, not as a filesystem", ErrUnusable)
	case !u.Block && u.FSType != "" && u.FSType != v.FSType:
		return fmt.Errorf("%w: it was made for %s, not %s", ErrUnusable, v.FSType, u.FSType)
	}
	return nil
}

// mountAt returns the mount of the volume's filesystem at path and its device.
func (st state) mountAt(path string) (disk.Device, disk.MountPoint, bool, error) {
	path = disk.Resolve(path)
	for _, d := range st.devices {
		mounts, err := d.Mounts()
		if err != nil {
			return d, disk.MountPoint{}, false, err
		}
		if i := slices.IndexFunc(mounts, func(m disk.MountPoint) bool { return m.Path == path }); i >= 0 {
			return d, mounts[i], true, nil
		}
	}
	return disk.Device{}, disk.MountPoint{}, false, nil
}

// mountPoints returns all mounts of the volume's filesystem and of its device node.
func (st state) mountPoints() (filesystems, nodes []disk.MountPoint, err error) {
	for _, d := range st.devices {
		m, err := d.Mounts()
		if err != nil {
			return nil, nil, err
		}
		n, err := d.Nodes()
		if err != nil {
			return nil, nil, err
		}
		filesystems, nodes = append(filesystems, m...), append(nodes, n...)
	}
	return filesystems, nodes, nil
}

// Stage attaches the volume and, for use as a filesystem, mounts it at path with flags
// as in mount(8) -o. It formats a volume that was never used, and grows the filesystem
// of one that was expanded or restored with a larger size.
func (s *Stager) Stage(ctx context.Context, u Use, path string, flags []string) error {
	st, unlock, err := s.lockForUse(ctx, u)
	if err == nil {
		defer unlock()
		if u.Block {
			err = s.stageBlock(st)
		} else {
			err = s.stageFilesystem(st, path, st.mountFlags(flags))
		}
	}
	if err != nil {
		return fmt.Errorf("staging volume %s at %s: %w", u.VolumeID, path, err)
	}
	return nil
}

// mountFlags adds "ro" to the requested flags if the attachment is read-only.
func (st state) mountFlags(asked []string) []string {
	if !st.attached.ReadOnly {
		return asked
	}
	return append(slices.Clone(asked), "ro")
}

func (s *Stager) stageBlock(st state) error {
	filesystems, _, err := st.mountPoints()
	if err != nil {
		return err
	}
	if len(filesystems) > 0 {
		return fmt.Errorf("%w: its filesystem is mounted at %s", ErrConflictingUse, filesystems[0].Path)
	}
	if s.Store.Shared() && !st.attached.Bound {
		// The existing device belongs to the node that had the volume before.
		if err := st.detachUnused(); err != nil {
			return err
		}
		if err := s.Store.SetBound(st.ID, st.attached); err != nil {
			return err
		}
	}
	a, err := disk.Attach(st.image, true)
	if err != nil {
		return err
	}
	return a.Close()
}

func (s *Stager) stageFilesystem(st state, path string, flags []string) error {
	device, mounted, found, err := st.mountAt(path)
	if err != nil {
		return err
	}
	readOnly := slices.Contains(flags, "ro")
	if found {
		if mounted.FSType != st.FSType || mounted.ReadOnly != readOnly {
			return fmt.Errorf("%w: %s is mounted there read-only=%t", ErrConflictingUse, mounted.FSType, mounted.ReadOnly)
		}
	} else if device, err = s.mount(st, path, flags); err != nil {
		return err
	}
	if readOnly || !disk.CanGrowMounted(st.FSType) {
		return nil
	}
	// Grow after a repeated call too: the previous one may have died between mount and
	// growth.
	if err := device.Resize(); err != nil {
		return err
	}
	return disk.GrowMounted(st.FSType, device, path)
}

func (s *Stager) mount(st state, path string, flags []string) (disk.Device, error) {
	if err := checkNotMounted(path); err != nil {
		return disk.Device{}, err
	}
	filesystems, nodes, err := st.mountPoints()
	if err != nil {
		return disk.Device{}, err
	}
	if len(nodes) > 0 {
		return disk.Device{}, fmt.Errorf("%w: its device is at %s", ErrConflictingUse, nodes[0].Path)
	}
	if len(filesystems) == 0 {
		if err := st.detachUnused(); err != nil {
			return disk.Device{}, err
		}
		if err := s.prepareFilesystem(st); err != nil {
			return disk.Device{}, err
		}
	}
	a, err := disk.Attach(st.image, false)
	if err != nil {
		return disk.Device{}, err
	}
	err = disk.Mount(st.FSType, a.Device, path, flags)
	return a.Device, errors.Join(err, a.Close())
}

// checkNotMounted fails if something is mounted at path.
func checkNotMounted(path string) error {
	mounted, err := disk.MountedAt(path)
	if err == nil && mounted {
		err = fmt.Errorf("%w: something else is mounted there", ErrConflictingUse)
	}
	return err
}

// detachUnused detaches a device without mounts, which an interrupted call, a use as
// raw device, or the volume's previous node left. The driver works on the image
// directly next, and the device's cache would be stale. A device that another node
// still has mounted cannot be detached: that node's data must be on disk before this
// one reads it.
func (st state) detachUnused() error {
	if len(st.devices) == 0 {
		return nil
	}
	if err := disk.Detach(st.image); err != nil {
		return err
	}
	left, err := disk.Find(st.image)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%w: something that this driver does not see, on this node or the one that had the volume before, has %s open; stop it, or shut down that node", volume.ErrInUse, left[0].Path)
	}
	return err
}

// prepareFilesystem ensures that the image has the volume's filesystem. It creates one
// only where there cannot be data: on an image of zeros, or where the record shows an
// unfinished mkfs.
func (s *Stager) prepareFilesystem(st state) error {
	found, err := disk.Probe(st.image)
	if err != nil {
		return err
	}
	switch {
	case st.Format == volume.Formatting:
		return s.format(st)
	case found == st.FSType:
		return s.checkFilesystem(st)
	case st.Format == volume.Formatted:
		return fmt.Errorf("%w: it was formatted with %s and that filesystem is no longer found; the driver does not format it again, restore a snapshot", volume.ErrDamaged, st.FSType)
	}
	blank, err := disk.IsBlank(st.image)
	if err != nil {
		return err
	}
	if !blank {
		return fmt.Errorf("%w: it has data that is not %s, and formatting would destroy it; use it as a raw device, or create a new volume", ErrUnusable, st.FSType)
	}
	return s.format(st)
}

// checkFilesystem checks and, if needed, grows a filesystem that was used before.
func (s *Stager) checkFilesystem(st state) error {
	if err := disk.Check(st.FSType, st.image); err != nil {
		return err
	}
	if !disk.CanGrowMounted(st.FSType) {
		if err := disk.GrowUnmounted(st.FSType, st.image); err != nil {
			return err
		}
	}
	if st.Format == volume.Formatted {
		return nil
	}
	_, err := s.Store.SetFormat(st.Volume, volume.Formatted)
	return err
}

func (s *Stager) format(st state) error {
	v, err := s.Store.SetFormat(st.Volume, volume.Formatting)
	if err != nil {
		return err
	}
	// Discard what an interrupted mkfs left: mkfs expects zeros.
	if err := errors.Join(os.Truncate(st.image, 0), os.Truncate(st.image, st.Size)); err != nil {
		return fmt.Errorf("emptying %s: %w", st.image, err)
	}
	if err := disk.Format(st.FSType, st.image); err != nil {
		return err
	}
	_, err = s.Store.SetFormat(v, volume.Formatted)
	return err
}

// Unstage undoes Stage. It succeeds if nothing is staged.
func (s *Stager) Unstage(ctx context.Context, id, path string) error {
	if err := s.unstage(ctx, id, path); err != nil {
		return fmt.Errorf("unstaging volume %s from %s: %w", id, path, err)
	}
	return nil
}

func (s *Stager) unstage(ctx context.Context, id, path string) error {
	unlock, err := s.Store.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	targets, err := s.mountedTargets(id)
	if err != nil {
		return err
	}
	for target := range targets {
		return fmt.Errorf("%w: it is still published at %s", volume.ErrInUse, target)
	}
	if err := disk.Unmount(path); err != nil {
		return err
	}
	// Do not detach another node's device. This node's own device was freed by the
	// unmount.
	if onOtherNode, err := s.Store.AttachedToOtherNode(id); err != nil || onOtherNode {
		return err
	}
	return disk.Detach(s.Store.ImagePath(volume.Volume{ID: id}))
}
