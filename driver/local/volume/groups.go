package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
)

// CreateGroup takes a snapshot of each volume, all at one point in time, or returns
// the group that it took for the same request before. Either all members exist
// afterwards or none. Like Create, it continues when ctx ends.
func (s *Store) CreateGroup(ctx context.Context, name string, volumeIDs []string) (Group, error) {
	g, err := s.createGroup(ctx, name, volumeIDs)
	if err != nil {
		return Group{}, fmt.Errorf("creating group snapshot %q: %w", name, err)
	}
	return g, nil
}

func (s *Store) createGroup(ctx context.Context, name string, volumeIDs []string) (Group, error) {
	ids := s.candidateIDs(groupPrefix, name)
	g := Group{ID: ids[0], Name: name, VolumeIDs: slices.Clone(volumeIDs)}
	if err := g.check(); err != nil {
		return Group{}, err
	}
	unlock, err := s.locks.lock(ctx, slices.Concat(ids, g.VolumeIDs, g.MemberIDs())...)
	if err != nil {
		return Group{}, err
	}
	defer unlock()

	switch have, err := s.groups.find(ids); {
	case err == nil:
		return have, have.matches(g)
	case !errors.Is(err, ErrNotFound):
		return Group{}, err
	}
	volumes, size, err := s.intactVolumes(g.VolumeIDs)
	if err != nil {
		return Group{}, err
	}
	release, err := s.reserve(g.ID, size)
	if err != nil {
		return Group{}, err
	}
	defer release()
	return s.takeGroup(g, volumes)
}

// check validates the request for a group.
func (g Group) check() error {
	if err := checkName(g.Name); err != nil {
		return err
	}
	if len(g.VolumeIDs) == 0 {
		return fmt.Errorf("%w: it names no volumes", ErrInvalid)
	}
	seen := map[string]bool{}
	for _, id := range g.VolumeIDs {
		if seen[id] {
			return fmt.Errorf("%w: it names volume %s twice", ErrInvalid, id)
		}
		seen[id] = true
	}
	return nil
}

// matches returns an error unless g is the result of a request for want. The order of
// the volumes does not matter.
func (g Group) matches(want Group) error {
	if g.Name != want.Name || !sameIDs(g.VolumeIDs, want.VolumeIDs) {
		return fmt.Errorf("%w: it is named %q and of volumes %v", ErrExists, g.Name, g.VolumeIDs)
	}
	return nil
}

func sameIDs(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// MemberIDs returns the IDs of the snapshots, in the order of VolumeIDs.
func (g Group) MemberIDs() []string {
	ids := make([]string, len(g.VolumeIDs))
	for i, id := range g.VolumeIDs {
		ids[i] = memberID(g.ID, id)
	}
	return ids
}

// intactVolumes returns the volumes and the sum of their sizes. It fails if one of
// them has lost data.
func (s *Store) intactVolumes(ids []string) (volumes []Volume, size int64, err error) {
	for _, id := range ids {
		v, err := s.volumes.get(id)
		if err != nil {
			return nil, 0, wrapOutcomeUnknown(err)
		}
		if fileSize(s.volumes.image(v.ID)) < v.Size {
			return nil, 0, fmt.Errorf("%w: volume %s has lost data: its image is missing or cut off", ErrDamaged, v.ID)
		}
		volumes = append(volumes, v)
		size += v.Size
	}
	return volumes, size, nil
}

// takeGroup writes the images, then the records of the members, and then the group's
// record, which makes the members exist.
func (s *Store) takeGroup(g Group, volumes []Volume) (Group, error) {
	// There is no record for the group's ID, so existing members were left by a failed
	// call.
	if err := s.removeSnapshots(g.MemberIDs()); err != nil {
		return Group{}, err
	}
	shared, err := s.copyConsistently(&g, volumes)
	if err == nil {
		err = s.recordGroup(g, volumes, shared)
	}
	if err != nil {
		return Group{}, errors.Join(wrapNoSpace(err), s.removeGroup(g.ID, g.MemberIDs()))
	}
	return g, nil
}

func (s *Store) recordGroup(g Group, volumes []Volume, shared []bool) error {
	for i, v := range volumes {
		id := memberID(g.ID, v.ID)
		if err := s.snapshots.files.growImage(s.snapshots.image(id), v.Size); err != nil {
			return err
		}
		err := s.snapshots.write(Snapshot{ID: id, Name: g.Name, VolumeID: v.ID, GroupID: g.ID, Size: v.Size,
			FSType: v.FSType, Format: v.Format, Shared: shared[i], Created: g.Created})
		if err != nil {
			return err
		}
	}
	return s.groups.write(g)
}

// Group returns the record of a group.
func (s *Store) Group(id string) (Group, error) {
	return s.groups.get(id)
}

// Members returns the group's snapshots, in the order of the request. For a damaged
// one it returns what the group's record contains; Created is zero.
func (s *Store) Members(g Group) []Snapshot {
	all := make([]Snapshot, len(g.VolumeIDs))
	for i, id := range g.MemberIDs() {
		all[i] = s.snapshotOrStub(id)
		all[i].VolumeID, all[i].GroupID = g.VolumeIDs[i], g.ID
	}
	return all
}

// DeleteGroup removes a group with all its members, which the caller must list.
// Volumes created from them are not affected. It succeeds for a group that does not
// exist, and returns ErrOtherStorage if another storage may have it.
func (s *Store) DeleteGroup(ctx context.Context, id string, memberIDs []string) error {
	if !groupID.MatchString(id) {
		return nil
	}
	if err := s.deleteGroup(ctx, id, memberIDs); err != nil {
		return fmt.Errorf("deleting group snapshot %s: %w", id, err)
	}
	return nil
}

func (s *Store) deleteGroup(ctx context.Context, id string, memberIDs []string) error {
	unlock, err := s.locks.lock(ctx, append([]string{id}, memberIDs...)...)
	if err != nil {
		return err
	}
	defer unlock()
	members, err := s.membersOf(id, memberIDs)
	if err != nil {
		return err
	}
	if err := s.allowDeletion(s.groups.record(id), id); err != nil {
		return err
	}
	for _, member := range members {
		if err := s.recordDeleted(member); err != nil {
			return err
		}
	}
	return s.removeGroup(id, members)
}

// membersOf returns the members of a group that is being deleted. It fails if the
// caller lists other snapshots. If the group's record is damaged or already removed,
// the records of the listed snapshots decide which of them are members.
func (s *Store) membersOf(id string, named []string) ([]string, error) {
	g, err := s.groups.get(id)
	switch {
	case err == nil:
		return g.MemberIDs(), g.CheckMembers(named)
	case !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged):
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(named), func(member string) bool {
		snap, err := s.snapshots.get(member)
		return err != nil || snap.GroupID != id
	}), nil
}

// CheckMembers returns an error unless ids are the members (CSI spec, Snapshot list
// mismatch).
func (g Group) CheckMembers(ids []string) error {
	if !sameIDs(g.MemberIDs(), ids) {
		return fmt.Errorf("%w: its snapshots are %v and not %v; name all of them", ErrInvalid, g.MemberIDs(), ids)
	}
	return nil
}

// removeGroup removes the group's record, which ends the existence of its members, and
// then their files.
func (s *Store) removeGroup(id string, members []string) error {
	if err := s.groups.delete(id); err != nil {
		return err
	}
	return s.removeSnapshots(members)
}

func (s *Store) removeSnapshots(snapshots []string) error {
	for _, id := range snapshots {
		if err := s.snapshots.delete(id); err != nil {
			return err
		}
	}
	return nil
}

// snapshotExists reports whether a recorded snapshot exists: a group member exists
// while the group's record does.
func (s *Store) snapshotExists(snap Snapshot) bool {
	if !groupID.MatchString(snap.GroupID) {
		return true
	}
	_, err := os.Lstat(s.groups.record(snap.GroupID))
	return !errors.Is(err, os.ErrNotExist)
}

// sweepMembers removes snapshots whose group was not completed or no longer exists.
func (s *Store) sweepMembers() error {
	ids, err := s.snapshots.list()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if s.snapshotExists(s.snapshotOrStub(id)) {
			continue
		}
		if err := s.ifIdle(id, func() error { return s.snapshots.delete(id) }); err != nil {
			return err
		}
	}
	return nil
}
