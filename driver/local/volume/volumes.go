package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/driver/local/disk"
)

// Create creates the volume for spec, or returns the one that it created for the same
// request before. It continues when ctx ends: a copy that restarts with each repeated
// call would never finish.
func (s *Store) Create(ctx context.Context, spec Spec) (Volume, error) {
	v, err := s.create(ctx, spec)
	if err != nil {
		return Volume{}, fmt.Errorf("creating volume %q: %w", spec.Name, err)
	}
	return v, nil
}

func (s *Store) create(ctx context.Context, spec Spec) (Volume, error) {
	if err := checkName(spec.Name); err != nil {
		return Volume{}, err
	}
	ids := s.candidateIDs(volumePrefix, spec.Name)
	id, keys := ids[0], slices.Clone(ids)
	if spec.Source != nil {
		keys = append(keys, spec.Source.ID)
	}
	unlock, err := s.locks.lock(ctx, keys...)
	if err != nil {
		return Volume{}, err
	}
	defer unlock()

	switch v, err := s.volumes.find(ids); {
	case err == nil:
		return v, spec.matches(v)
	case !errors.Is(err, ErrNotFound):
		return Volume{}, err
	}
	v := Volume{ID: id, Name: spec.Name, Access: spec.Access, FSType: spec.FSType, Source: spec.Source}
	from, err := s.source(spec)
	if errors.Is(err, ErrOtherStorage) {
		return Volume{}, fmt.Errorf("%w: %w", ErrSourceInOtherStorage, err)
	}
	if err != nil {
		return Volume{}, err
	}
	v.Format = from.format
	if v.Size, err = spec.size(from.size); err != nil {
		return Volume{}, err
	}
	release, err := s.reserve(id, v.Size)
	if err != nil {
		return Volume{}, err
	}
	defer release()
	return s.createFiles(v, from)
}

// createFiles writes the image and then the record.
func (s *Store) createFiles(v Volume, from origin) (Volume, error) {
	image := s.volumes.image(v.ID)
	// There is no record for this ID, so an existing file was left by a failed call.
	err := s.volumes.files.remove(image)
	if err == nil && from.image == "" {
		err = s.volumes.files.newImage(image, v.Size)
	} else if err == nil {
		v.Shared, err = s.copy(image, from.image, v.Size)
	}
	if err == nil {
		v.Created = s.now().UTC()
		err = s.volumes.write(v)
	}
	if err != nil {
		// The record may exist although writing it failed in the end.
		return Volume{}, errors.Join(wrapNoSpace(err), s.volumes.delete(v.ID))
	}
	return v, nil
}

// copy creates an image of the given size with the content of from, which stays
// quiesced during the copy.
func (s *Store) copy(to, from string, size int64) (shared bool, err error) {
	shared, err = s.copyQuiesced(to, from)
	if err == nil {
		err = s.volumes.files.growImage(to, size)
	}
	return shared, err
}

func (s *Store) copyQuiesced(to, from string) (shared bool, err error) {
	freeze, err := s.quiesce(from)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, freeze.Thaw()) }()
	return s.copyFrozen(to, from, freeze)
}

// copyFrozen copies an image that was quiesced with freeze, before it is thawed.
func (s *Store) copyFrozen(to, from string, freeze disk.Freeze) (shared bool, err error) {
	shared, err = s.volumes.files.copyImage(to, from, freeze.Quiesced)
	if errors.Is(err, disk.ErrSourceChanging) {
		return false, fmt.Errorf("%w: %w; stop the workload that uses it as a raw device, or keep the data directory on XFS or Btrfs", ErrInUse, err)
	}
	return shared, err
}

// origin is the initial content of a new volume.
type origin struct {
	image  string
	size   int64
	format Format
}

// source returns the content source of spec. The caller has the source's lock.
func (s *Store) source(spec Spec) (origin, error) {
	var from origin
	var fsType string
	switch {
	case spec.Source == nil:
		return origin{}, nil
	case spec.Source.Kind == FromVolume:
		v, err := s.volumes.get(spec.Source.ID)
		if err != nil {
			return origin{}, fmt.Errorf("source: %w", err)
		}
		from, fsType = origin{s.volumes.image(v.ID), v.Size, v.Format}, v.FSType
	default:
		snap, err := s.Snapshot(spec.Source.ID)
		if err != nil {
			return origin{}, fmt.Errorf("source: %w", err)
		}
		from, fsType = origin{s.snapshots.image(snap.ID), snap.Size, snap.Format}, snap.FSType
	}
	if from.format != Unformatted && spec.Access.Mount && spec.FSType != fsType {
		return origin{}, fmt.Errorf("%w: %s %s has %s and the volume requests %s", ErrInvalid, spec.Source.Kind, spec.Source.ID, fsType, spec.FSType)
	}
	if fileSize(from.image) < from.size {
		return origin{}, fmt.Errorf("%w: %s %s has lost data: its image %s is missing or cut off", ErrDamaged, spec.Source.Kind, spec.Source.ID, from.image)
	}
	return from, nil
}

// size returns the size of the new volume, given its source's size (0 for none).
func (spec Spec) size(source int64) (int64, error) {
	want := spec.Range
	if source == 0 {
		return want.choose(spec.floor())
	}
	if want.Required == 0 {
		want.Required = source
	}
	size, err := want.choose(spec.floor())
	if err == nil && size < source {
		err = fmt.Errorf("%w: the source has %s and %s are asked for; ask for at least as much", ErrOutOfRange, formatSize(source), formatSize(want.Required))
	}
	return size, err
}

// matches returns an error unless v is the result of a request for spec.
func (spec Spec) matches(v Volume) error {
	switch {
	case v.Name != spec.Name:
		return fmt.Errorf("%w: volume %s belongs to the name %q", ErrExists, v.ID, v.Name)
	case !spec.Range.contains(v.Size):
		return fmt.Errorf("%w: its size is %s", ErrExists, formatSize(v.Size))
	case v.Access != spec.Access || v.FSType != spec.FSType:
		return fmt.Errorf("%w: its access is mount=%t (%s) block=%t", ErrExists, v.Access.Mount, v.FSType, v.Access.Block)
	case (v.Source == nil) != (spec.Source == nil) || v.Source != nil && *v.Source != *spec.Source:
		return fmt.Errorf("%w: its content source is another", ErrExists)
	}
	return nil
}

// Volume returns the record of a volume.
func (s *Store) Volume(id string) (Volume, error) {
	return s.volumes.get(id)
}

// Volumes returns up to limit volumes (all for 0) in the order of their IDs, starting
// behind after, and whether there are more. For a damaged volume it returns only the
// ID and the size of the image.
func (s *Store) Volumes(after string, limit int) (volumes []Volume, more bool, err error) {
	ids, more, err := s.volumes.page(after, limit)
	for _, id := range ids {
		volumes = append(volumes, s.volumeOrStub(id))
	}
	return volumes, more, err
}

// Delete removes a volume and its data. It succeeds for a volume that does not exist,
// and returns ErrOtherStorage if another storage may have it.
func (s *Store) Delete(ctx context.Context, id string) error {
	if !volumeID.MatchString(id) {
		return nil
	}
	unlock, err := s.locks.lock(ctx, id)
	if err != nil {
		return fmt.Errorf("deleting volume %s: %w", id, err)
	}
	defer unlock()
	devices, err := disk.Find(s.volumes.image(id))
	if err == nil && len(devices) > 0 {
		err = fmt.Errorf("%w: it is attached to %s; stop what uses it", ErrInUse, devices[0].Path)
	}
	if err == nil {
		err = s.checkNotAttached(id)
	}
	if err == nil {
		err = s.allowDeletion(s.volumes.record(id), id)
	}
	if err == nil {
		err = s.volumes.delete(id)
	}
	if err == nil {
		err = s.deletePublished(id)
	}
	if err != nil {
		return fmt.Errorf("deleting volume %s: %w", id, err)
	}
	return nil
}

// Expand grows the volume to satisfy r. It does not change a volume that is large
// enough. Only the image grows: NodeExpandVolume grows the device and the filesystem.
func (s *Store) Expand(ctx context.Context, id string, r Range) (Volume, error) {
	unlock, err := s.locks.lock(ctx, id)
	if err != nil {
		return Volume{}, fmt.Errorf("expanding volume %s: %w", id, err)
	}
	defer unlock()
	v, err := s.volumes.get(id)
	if err == nil {
		v, err = s.expand(v, r)
	}
	if err != nil {
		return Volume{}, fmt.Errorf("expanding volume %s: %w", id, err)
	}
	return v, nil
}

// expandedSize returns the size that v needs to satisfy r.
func (v Volume) expandedSize(r Range) (int64, error) {
	if r.Required == 0 && r.Limit == 0 {
		return 0, fmt.Errorf("%w: the size asked for is missing", ErrInvalid)
	}
	r.Required = max(r.Required, v.Size)
	if r.Limit > 0 && v.Size > r.Limit {
		return 0, fmt.Errorf("%w: it has %s already and the limit is %s; volumes do not shrink", ErrOutOfRange, formatSize(v.Size), formatSize(r.Limit))
	}
	size, err := r.choose(v.Size)
	// The target size of an interrupted expansion stays reserved.
	return max(size, v.Growing), err
}

func (s *Store) expand(v Volume, r Range) (Volume, error) {
	size, err := v.expandedSize(r)
	if err != nil || size == v.Size {
		return v, err
	}
	if fileSize(s.volumes.image(v.ID)) < v.Size {
		return v, fmt.Errorf("%w: its image %s is missing or cut off", ErrDamaged, s.volumes.image(v.ID))
	}
	release, err := s.reserve(v.ID, size-v.promised())
	if err != nil {
		return v, err
	}
	defer release()
	// Record the target size first, so that a longer image is recognised as an
	// unfinished expansion.
	v.Growing = size
	if err := s.volumes.write(v); err != nil {
		return v, wrapNoSpace(err)
	}
	return s.finishGrowing(v)
}

// finishGrowing completes the recorded expansion.
func (s *Store) finishGrowing(v Volume) (Volume, error) {
	if err := s.volumes.files.growImage(s.volumes.image(v.ID), v.Growing); err != nil {
		return v, wrapNoSpace(err)
	}
	v.Size, v.Growing = v.Growing, 0
	return v, wrapNoSpace(s.volumes.write(v))
}

// SetFormat records the progress of creating the volume's filesystem. The caller has
// the volume's lock.
func (s *Store) SetFormat(v Volume, f Format) (Volume, error) {
	v.Format = f
	if err := s.volumes.write(v); err != nil {
		return v, fmt.Errorf("recording the format of volume %s: %w", v.ID, wrapNoSpace(err))
	}
	return v, nil
}
