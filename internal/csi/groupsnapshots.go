package csi

import (
	"context"
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// CreateVolumeGroupSnapshot cuts a snapshot of each source volume at one moment,
// under the request's name, or finds them ("CreateVolumeGroupSnapshot":
// idempotent by name). It waits for other calls with the same name. While
// ready_to_use is false the driver still works on it: ask again. An answer
// without the group's id, or whose members are not one of each source, is a
// [BadAnswer] with what there is of ids. A creation time that the driver does
// not tell is nil, of the group and of each member.
func (d *Driver) CreateVolumeGroupSnapshot(ctx context.Context, req *csipb.CreateVolumeGroupSnapshotRequest) (*csipb.VolumeGroupSnapshot, error) {
	answer, err := send(ctx, d, about{CreateVolumeGroupSnapshot, groupNamed(req.GetName())}, d.group.CreateVolumeGroupSnapshot, req)
	if err != nil {
		return nil, err
	}
	group := answer.GetGroupSnapshot()
	reason := checkGroup(group)
	if reason == "" {
		reason = checkSources(req.GetSourceVolumeIds(), group.GetSnapshots())
	}
	return d.judged(CreateVolumeGroupSnapshot, group, reason)
}

// GetVolumeGroupSnapshot reads a group and its members. Code NotFound means that
// there is no such group, InvalidArgument that it has other members than the
// request names. It waits for other calls about the id.
func (d *Driver) GetVolumeGroupSnapshot(ctx context.Context, req *csipb.GetVolumeGroupSnapshotRequest) (*csipb.VolumeGroupSnapshot, error) {
	answer, err := send(ctx, d, about{GetVolumeGroupSnapshot, groupID(req.GetGroupSnapshotId())}, d.group.GetVolumeGroupSnapshot, req)
	if err != nil {
		return nil, err
	}
	group := answer.GetGroupSnapshot()
	reason := checkGroup(group)
	if reason == "" && group.GetGroupSnapshotId() != req.GetGroupSnapshotId() {
		reason = "it is not the group that was asked for"
	}
	return d.judged(GetVolumeGroupSnapshot, group, reason)
}

// DeleteVolumeGroupSnapshot deletes a group with all its members; one that is
// gone is a success ("DeleteVolumeGroupSnapshot"). The request names the members
// too: some drivers need them, and others refuse a list that is not theirs. It
// waits for other calls about the id.
func (d *Driver) DeleteVolumeGroupSnapshot(ctx context.Context, req *csipb.DeleteVolumeGroupSnapshotRequest) error {
	_, err := send(ctx, d, about{DeleteVolumeGroupSnapshot, groupID(req.GetGroupSnapshotId())}, d.group.DeleteVolumeGroupSnapshot, req)
	return err
}

// judged is the group, or the reason for which it cannot be used as an error.
func (d *Driver) judged(method Method, group *csipb.VolumeGroupSnapshot, reason string) (*csipb.VolumeGroupSnapshot, error) {
	if reason != "" {
		bad := &BadAnswer{ID: group.GetGroupSnapshotId(), Reason: reason}
		for _, member := range group.GetSnapshots() {
			bad.MemberIDs = append(bad.MemberIDs, member.GetSnapshotId())
		}
		return nil, d.fail(method, bad)
	}
	group.CreationTime = told(group.GetCreationTime())
	for _, member := range group.GetSnapshots() {
		member.CreationTime = told(member.GetCreationTime())
	}
	return group, nil
}

// told is a time that the driver knows, or nil. Drivers that do not know one
// leave it out or send what their language makes of none: the beginning of 1970,
// or of the calendar.
func told(at *timestamppb.Timestamp) *timestamppb.Timestamp {
	if at.GetSeconds() <= 0 {
		return nil
	}
	return at
}

// checkGroup is about what a group says of itself. Members need not name their
// group, as the specification would have it, because they come inside of it;
// naming another one is a contradiction.
func checkGroup(group *csipb.VolumeGroupSnapshot) string {
	id := group.GetGroupSnapshotId()
	if id == "" {
		return "the group has no id"
	}
	if !validTime(group.GetCreationTime()) {
		return "the group was made at a time that is none"
	}
	seen := make(map[string]bool)
	for _, member := range group.GetSnapshots() {
		if reason := checkMember(id, member); reason != "" {
			return reason
		}
		if seen[member.GetSnapshotId()] {
			return fmt.Sprintf("snapshot %q is in it twice", member.GetSnapshotId())
		}
		seen[member.GetSnapshotId()] = true
	}
	return ""
}

func checkMember(group string, member *csipb.Snapshot) string {
	id := member.GetSnapshotId()
	switch {
	case id == "":
		return "a snapshot of the group has no id"
	case member.GetSourceVolumeId() == "":
		return fmt.Sprintf("snapshot %q does not say of which volume it is", id)
	case member.GetGroupSnapshotId() != "" && member.GetGroupSnapshotId() != group:
		return fmt.Sprintf("snapshot %q says that it belongs to group %q", id, member.GetGroupSnapshotId())
	case member.GetSizeBytes() < 0:
		return fmt.Sprintf("the size of snapshot %q is negative: %d bytes", id, member.GetSizeBytes())
	case !validTime(member.GetCreationTime()):
		return fmt.Sprintf("snapshot %q was made at a time that is none", id)
	default:
		return ""
	}
}

func validTime(at *timestamppb.Timestamp) bool { return told(at) == nil || at.CheckValid() == nil }

// checkSources wants one snapshot of each volume that was asked for, and of no
// other.
func checkSources(asked []string, members []*csipb.Snapshot) string {
	missing := make(map[string]bool, len(asked))
	for _, volume := range asked {
		missing[volume] = true
	}
	cut := make(map[string]bool, len(members))
	for _, member := range members {
		volume := member.GetSourceVolumeId()
		switch {
		case cut[volume]:
			return fmt.Sprintf("there are two snapshots of volume %q", volume)
		case !missing[volume]:
			return fmt.Sprintf("snapshot %q is of volume %q, which was not asked for", member.GetSnapshotId(), volume)
		}
		cut[volume] = true
		delete(missing, volume)
	}
	for _, volume := range asked {
		if missing[volume] {
			return fmt.Sprintf("there is no snapshot of volume %q", volume)
		}
	}
	return ""
}
