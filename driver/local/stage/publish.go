package stage

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/volume"
)

// Publication is a request to publish a staged volume at a target path.
type Publication struct {
	Use
	// Staging is the path at which the volume is staged.
	Staging string
	// Target is the path for the workload. Its parent exists.
	Target string
	// ReadOnly requests a read-only mount.
	ReadOnly bool
	// Exclusive is set for access modes that allow only one target path at a time.
	Exclusive bool
}

// Publish publishes the staged volume at the target. A second call follows the table
// in the CSI spec, NodePublishVolume, with SINGLE_NODE_MULTI_WRITER.
func (s *Stager) Publish(ctx context.Context, p Publication) error {
	st, unlock, err := s.lockForUse(ctx, p.Use)
	if err == nil {
		defer unlock()
		err = s.publish(st, p)
	}
	if err != nil {
		return fmt.Errorf("publishing volume %s at %s: %w", p.VolumeID, p.Target, err)
	}
	return nil
}

func (s *Stager) publish(st state, p Publication) error {
	p.ReadOnly = p.ReadOnly || st.attached.ReadOnly
	targets, err := s.mountedTargets(st.ID)
	if err != nil {
		return err
	}
	target := disk.Resolve(p.Target)
	want := volume.Publication{Block: p.Block, ReadOnly: p.ReadOnly, Exclusive: p.Exclusive}
	if have, ok := targets[target]; ok {
		if have != want {
			return fmt.Errorf("%w: it is published there with read-only=%t block=%t exclusive=%t", ErrConflictingUse, have.ReadOnly, have.Block, have.Exclusive)
		}
		return nil
	}
	if err := checkNotMounted(target); err != nil {
		return err
	}
	if err := checkOtherTargets(want, targets); err != nil {
		return err
	}
	source, err := st.source(p)
	if err != nil {
		return err
	}
	// Record the publication before the mount: an unrecorded mount would allow a
	// second writer.
	targets[target] = want
	if err := s.Store.SetPublished(st.ID, targets); err != nil {
		return err
	}
	if err := makeTarget(target, p.Block); err != nil {
		return err
	}
	return disk.Bind(source, target, p.ReadOnly)
}

// source returns what is bind-mounted at the target, prepared for it.
func (st state) source(p Publication) (string, error) {
	if !p.Block {
		_, _, found, err := st.mountAt(p.Staging)
		if err == nil && !found {
			err = fmt.Errorf("%w: it is not staged at %s", ErrUnusable, p.Staging)
		}
		return p.Staging, err
	}
	if len(st.devices) == 0 {
		return "", fmt.Errorf("%w: it is not staged", ErrUnusable)
	}
	device := st.devices[0]
	return device.Path, device.SetReadOnly(p.ReadOnly)
}

func makeTarget(path string, block bool) error {
	if !block {
		if err := os.Mkdir(path, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// mountedTargets returns the recorded publications whose path is mounted. It works for
// an image that was removed while in use, because that still has its device.
func (s *Stager) mountedTargets(id string) (map[string]volume.Publication, error) {
	targets, err := s.Store.Published(id)
	if err != nil {
		return nil, err
	}
	for path := range targets {
		mounted, err := disk.MountedAt(path)
		if err != nil {
			return nil, err
		}
		if !mounted {
			delete(targets, path)
		}
	}
	return targets, nil
}

// Unpublish removes the mount at the target and the target. It succeeds if there is
// none: kubelet repeats the call until it succeeds, even for volumes that no longer
// exist.
func (s *Stager) Unpublish(ctx context.Context, id, target string) error {
	if err := s.unpublish(ctx, id, disk.Resolve(target)); err != nil {
		return fmt.Errorf("unpublishing volume %s from %s: %w", id, target, err)
	}
	return nil
}

func (s *Stager) unpublish(ctx context.Context, id, target string) error {
	unlock, err := s.Store.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if err := disk.Unmount(target); err != nil {
		return err
	}
	// Do not use RemoveAll: files in a target that is not mounted are not ours.
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	targets, err := s.mountedTargets(id)
	if err != nil {
		return err
	}
	return s.Store.SetPublished(id, targets)
}

// checkOtherTargets returns an error if the volume must not be published at another
// target. A raw device is read-only or writable as a whole, so its targets must agree.
func checkOtherTargets(want volume.Publication, targets map[string]volume.Publication) error {
	for path, have := range targets {
		switch {
		case want.Exclusive || have.Exclusive:
			return fmt.Errorf("%w: it is published at %s and may have only one target", volume.ErrInUse, path)
		case want.Block && want.ReadOnly != have.ReadOnly:
			return fmt.Errorf("%w: it is published at %s with read-only=%t, which applies to the whole device", volume.ErrInUse, path, have.ReadOnly)
		}
	}
	return nil
}
