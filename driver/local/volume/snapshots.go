package volume

import (
	"context"
	"errors"
	"fmt"
)

// CreateSnapshot takes a snapshot of the volume, or returns the one that it took for
// the same request before. Like Create, it continues when ctx ends.
func (s *Store) CreateSnapshot(ctx context.Context, name, volumeID string) (Snapshot, error) {
	snap, err := s.createSnapshot(ctx, name, volumeID)
	if err != nil {
		return Snapshot{}, fmt.Errorf("creating snapshot %q: %w", name, err)
	}
	return snap, nil
}

func (s *Store) createSnapshot(ctx context.Context, name, volumeID string) (Snapshot, error) {
	if err := checkName(name); err != nil {
		return Snapshot{}, err
	}
	ids := s.candidateIDs(snapshotPrefix, name)
	unlock, err := s.locks.lock(ctx, append([]string{volumeID}, ids...)...)
	if err != nil {
		return Snapshot{}, err
	}
	defer unlock()

	switch snap, err := s.snapshots.find(ids); {
	case err == nil:
		return snap, snap.matches(name, volumeID)
	case !errors.Is(err, ErrNotFound):
		return Snapshot{}, err
	}
	v, err := s.volumes.get(volumeID)
	if err != nil {
		return Snapshot{}, wrapOutcomeUnknown(err)
	}
	id := ids[0]
	if fileSize(s.volumes.image(v.ID)) < v.Size {
		return Snapshot{}, fmt.Errorf("%w: volume %s has lost data: its image is missing or cut off", ErrDamaged, v.ID)
	}
	release, err := s.reserve(id, v.Size)
	if err != nil {
		return Snapshot{}, err
	}
	defer release()
	return s.takeSnapshot(v, Snapshot{ID: id, Name: name, VolumeID: v.ID, Size: v.Size, FSType: v.FSType, Format: v.Format})
}

// matches returns an error unless snap is the result of a request with these
// arguments.
func (snap Snapshot) matches(name, volumeID string) error {
	if snap.Name != name || snap.VolumeID != volumeID {
		return fmt.Errorf("%w: it is named %q and of volume %s", ErrExists, snap.Name, snap.VolumeID)
	}
	return nil
}

// takeSnapshot writes the image and then the record.
func (s *Store) takeSnapshot(v Volume, snap Snapshot) (Snapshot, error) {
	image := s.snapshots.image(snap.ID)
	// There is no record for this ID, so an existing file was left by a failed call.
	if err := s.snapshots.files.remove(image); err != nil {
		return Snapshot{}, err
	}
	var err error
	snap.Created = s.now().UTC()
	snap.Shared, err = s.copy(image, s.volumes.image(v.ID), v.Size)
	if err == nil {
		err = s.snapshots.write(snap)
	}
	if err != nil {
		// The record may exist although writing it failed in the end.
		return Snapshot{}, errors.Join(wrapNoSpace(err), s.snapshots.delete(snap.ID))
	}
	return snap, nil
}

// Snapshot returns the record of a snapshot.
func (s *Store) Snapshot(id string) (Snapshot, error) {
	snap, err := s.snapshots.get(id)
	if err == nil && !s.snapshotExists(snap) {
		return Snapshot{}, fmt.Errorf("%s %s: %w", s.snapshots.kind, id, ErrNotFound)
	}
	return snap, err
}

// Snapshots returns snapshots as Volumes returns volumes: those of one volume, or all
// if volumeID is "". For a damaged snapshot it returns only the ID and the size of the
// image; Created is zero.
func (s *Store) Snapshots(volumeID, after string, limit int) (snapshots []Snapshot, more bool, err error) {
	ids, _, err := s.snapshots.page(after, 0)
	if err != nil {
		return nil, false, err
	}
	for _, id := range ids {
		snap := s.snapshotOrStub(id)
		if volumeID != "" && snap.VolumeID != volumeID || !s.snapshotExists(snap) {
			continue
		}
		if limit > 0 && len(snapshots) == limit {
			return snapshots, true, nil
		}
		snapshots = append(snapshots, snap)
	}
	return snapshots, false, nil
}

// DeleteSnapshot removes a snapshot. Volumes created from it are not affected. It
// succeeds for a snapshot that does not exist, and returns ErrOtherStorage if another
// storage may have it.
func (s *Store) DeleteSnapshot(ctx context.Context, id string) error {
	if !snapshotID.MatchString(id) {
		return nil
	}
	unlock, err := s.locks.lock(ctx, id)
	if err == nil {
		defer unlock()
		err = s.deleteUngrouped(id)
	}
	if err != nil {
		return fmt.Errorf("deleting snapshot %s: %w", id, err)
	}
	return nil
}

// deleteUngrouped removes a snapshot that does not belong to a group. The caller has
// its lock.
func (s *Store) deleteUngrouped(id string) error {
	snap, err := s.snapshots.get(id)
	switch {
	case err != nil || snap.GroupID == "": // A damaged one can be deleted too.
		if err := s.allowDeletion(s.snapshots.record(id), id); err != nil {
			return err
		}
		return s.snapshots.delete(id)
	case s.snapshotExists(snap):
		return fmt.Errorf("%w: it is a member of group snapshot %s and is deleted with it; delete the group", ErrInvalid, snap.GroupID)
	default:
		return nil // A member without its group does not exist; the next Open removes its files.
	}
}
