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

// The ways in which a call fails, besides those of package volume and
// disk.ErrUnprivileged.
var (
	// ErrConflictingUse is a path that is in use already, in another way than asked.
	ErrConflictingUse = errors.New("in use in another way")
	// ErrUnusable is a use that the volume is not made for or not ready for.
	ErrUnusable = errors.New("cannot be used like this")
	// ErrNotAtPath is a path at which the volume is not.
	ErrNotAtPath = errors.New("the volume is not there")
)

// Stager does the work of a CSI node service for the volumes of Store.
type Stager struct {
	Store *volume.Store
}

// Use says how a volume is to be used.
type Use struct {
	// VolumeID is the volume.
	VolumeID string
	// Block asks for the raw device instead of a filesystem.
	Block bool
	// FSType is the filesystem that is expected, "" for the volume's.
	FSType string
	// Token is what the volume was attached with, for stores that attach.
	Token string
}

// state is what is known about a volume under its lock.
type state struct {
	volume.Volume
	image   string
	devices []disk.Device
	// attached is as whom this node may use the volume, zero where nobody is asked.
	attached volume.Attachment
}

// lockForUse takes the volume's lock and sees where it is. It fails when the volume's
// data is not whole, because using it would make things worse, and when this node
// has no right to use it any more.
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

// checkAccess tells whether the volume was made for this use.
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

// mountPoints returns all paths at which the volume is, filesystem or node.
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

// Stage makes the volume ready for use on this machine: at path if it is used
// as a filesystem, with flags as in mount(8) -o. A volume that was never used is
// given its filesystem, and one that was expanded or restored larger grows.
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

// mountFlags adds to what is asked what the attachment leaves of it.
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
		// What is there is of the node that had the volume before.
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
	// Also after a repeated call: the one before may have died between mount and growth.
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

// checkNotMounted fails when something is mounted at path.
func checkNotMounted(path string) error {
	mounted, err := disk.MountedAt(path)
	if err == nil && mounted {
		err = fmt.Errorf("%w: something else is mounted there", ErrConflictingUse)
	}
	return err
}

// detachUnused frees a device that has no mount: what an interrupted call, a use as raw
// device, or a node that the volume was taken from left. The image is worked on
// directly next, and two views of it would not agree. A device that another node
// still has mounted cannot be freed; that node's data must be on disk before
// this one looks.
func (st state) detachUnused() error {
	if len(st.devices) == 0 {
		return nil
	}
	if err := disk.Detach(st.image); err != nil {
		return err
	}
	left, err := disk.Find(st.image)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%w: something that this driver does not see, on this node or the one that had the volume before, has %s open; stop that, or end that node", volume.ErrInUse, left[0].Path)
	}
	return err
}

// prepareFilesystem makes sure that the image has the volume's filesystem. It makes one
// only where no data can be: on an image of zeros, or where an earlier mkfs is on
// record as not finished.
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
		return fmt.Errorf("%w: it was formatted with %s and no such filesystem is found; it is not formatted again, restore a snapshot", volume.ErrDamaged, st.FSType)
	}
	blank, err := disk.IsBlank(st.image)
	if err != nil {
		return err
	}
	if !blank {
		return fmt.Errorf("%w: it holds data that is no %s, and is not formatted over it; use it as a raw device, or create a new volume", ErrUnusable, st.FSType)
	}
	return s.format(st)
}

// checkFilesystem readies a filesystem that was used before.
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
	// An interrupted mkfs left something; mkfs is promised zeros.
	if err := errors.Join(os.Truncate(st.image, 0), os.Truncate(st.image, st.Size)); err != nil {
		return fmt.Errorf("emptying %s: %w", st.image, err)
	}
	if err := disk.Format(st.FSType, st.image); err != nil {
		return err
	}
	_, err = s.Store.SetFormat(v, volume.Formatted)
	return err
}

// Unstage takes back what Stage did. It succeeds where nothing is staged.
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
	// Another node's device is not for this one to free. Its own went with the mount.
	if onOtherNode, err := s.Store.AttachedToOtherNode(id); err != nil || onOtherNode {
		return err
	}
	return disk.Detach(s.Store.ImagePath(volume.Volume{ID: id}))
}
