package csi

import (
	"context"
	"fmt"
	"slices"
	"strings"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// CreateVolumeGroupSnapshot cuts a snapshot of each source volume at one moment,
// under the request's name, or finds them ("CreateVolumeGroupSnapshot":
// idempotent by name). It waits for other calls with the same name. While
// ready_to_use is false the driver still works on it: ask again. An answer
// without the group's id, or from which it cannot be told that there is a snapshot
// of each source, is a [InvalidResponse] with what there is of ids. In the answer the
// members name their sources as the request does, wherever that can be told. A
// creation time that the driver does not tell is nil, of the group and of each
// member.
func (d *Driver) CreateVolumeGroupSnapshot(ctx context.Context, req *csipb.CreateVolumeGroupSnapshotRequest) (*csipb.VolumeGroupSnapshot, error) {
	resp, err := send(ctx, d, operation{CreateVolumeGroupSnapshot, groupNamed(req.GetName())}, d.group.CreateVolumeGroupSnapshot, req)
	if err != nil {
		return nil, err
	}
	group := resp.GetGroupSnapshot()
	if reason := checkGroup(group); reason != "" {
		return nil, d.invalidGroup(CreateVolumeGroupSnapshot, group, reason)
	}
	what, detail := normalizeSources(req.GetSourceVolumeIds(), group.GetSnapshots())
	d.logDeviation(ctx, CreateVolumeGroupSnapshot, what, detail)
	if reason := checkSources(req.GetSourceVolumeIds(), group.GetSnapshots()); reason != "" {
		return nil, d.invalidGroup(CreateVolumeGroupSnapshot, group, reason)
	}
	d.normalizeGroup(ctx, CreateVolumeGroupSnapshot, group)
	return group, nil
}

// GetVolumeGroupSnapshot reads a group and its members. Code NotFound means that
// there is no such group, InvalidArgument that it has other members than the
// request names. It waits for other calls about the id.
func (d *Driver) GetVolumeGroupSnapshot(ctx context.Context, req *csipb.GetVolumeGroupSnapshotRequest) (*csipb.VolumeGroupSnapshot, error) {
	resp, err := send(ctx, d, operation{GetVolumeGroupSnapshot, groupID(req.GetGroupSnapshotId())}, d.group.GetVolumeGroupSnapshot, req)
	if err != nil {
		return nil, err
	}
	group := resp.GetGroupSnapshot()
	if reason := checkGroup(group); reason != "" {
		return nil, d.invalidGroup(GetVolumeGroupSnapshot, group, reason)
	}
	if got := group.GetGroupSnapshotId(); got != req.GetGroupSnapshotId() {
		d.logDeviation(ctx, GetVolumeGroupSnapshot, "it names a group otherwise than the request did",
			fmt.Sprintf("asked for was %q, reported is %q", req.GetGroupSnapshotId(), got))
	}
	d.normalizeGroup(ctx, GetVolumeGroupSnapshot, group)
	return group, nil
}

// invalidGroup makes an error of a reason for which a group cannot be used.
func (d *Driver) invalidGroup(method Method, group *csipb.VolumeGroupSnapshot, reason string) *Error {
	bad := &InvalidResponse{ID: group.GetGroupSnapshotId(), Reason: reason}
	for _, member := range group.GetSnapshots() {
		if id := member.GetSnapshotId(); id != "" {
			bad.MemberIDs = append(bad.MemberIDs, id)
		}
	}
	return d.fail(method, bad)
}

// normalizeGroup logs what is odd about a group that is taken, and makes unknown what
// cannot be meant.
func (d *Driver) normalizeGroup(ctx context.Context, method Method, group *csipb.VolumeGroupSnapshot) {
	id := group.GetGroupSnapshotId()
	if !validTime(group.GetCreationTime()) {
		d.logDeviation(ctx, method, "the creation time of a group is invalid", fmt.Sprintf("group %q was created at %v", id, group.GetCreationTime()))
		group.CreationTime = nil
	}
	group.CreationTime = knownTime(group.GetCreationTime())
	for _, member := range group.GetSnapshots() {
		if of := member.GetGroupSnapshotId(); of != "" && of != id {
			d.logDeviation(ctx, method, "a snapshot of a group names another group", fmt.Sprintf("snapshot %q of group %q names %q", member.GetSnapshotId(), id, of))
		}
		d.normalizeSnapshot(ctx, method, member)
		member.CreationTime = knownTime(member.GetCreationTime())
	}
}

// knownTime is a time that the driver knows, or nil. Drivers that do not know one
// leave it out or send what their language makes of none: the beginning of 1970,
// or of the calendar.
func knownTime(at *timestamppb.Timestamp) *timestamppb.Timestamp {
	if at.GetSeconds() <= 0 {
		return nil
	}
	return at
}

func validTime(at *timestamppb.Timestamp) bool { return knownTime(at) == nil || at.CheckValid() == nil }

// checkGroup wants the ids by which a group and its members are followed and
// deleted.
func checkGroup(group *csipb.VolumeGroupSnapshot) string {
	if group.GetGroupSnapshotId() == "" {
		return "the group has no id"
	}
	seen := make(map[string]bool)
	for _, member := range group.GetSnapshots() {
		id := member.GetSnapshotId()
		switch {
		case id == "":
			return "a snapshot of the group has no id"
		case seen[id]:
			return fmt.Sprintf("snapshot %q is in it twice", id)
		}
		seen[id] = true
	}
	return ""
}

// normalizeSources has the members name their sources as they were asked for, where drivers
// name a source in words of their own: one that contains the other, and no other
// one, is meant; and what is left over on both sides belongs together.
func normalizeSources(asked []string, members []*csipb.Snapshot) (what, detail string) {
	missing, unmatched := slices.Clone(asked), []*csipb.Snapshot(nil)
	for _, member := range members {
		if at := slices.Index(missing, member.GetSourceVolumeId()); at >= 0 {
			missing = slices.Delete(missing, at, at+1)
		} else {
			unmatched = append(unmatched, member)
		}
	}
	for _, member := range unmatched {
		volume := matchVolume(member.GetSourceVolumeId(), missing)
		if len(unmatched) == 1 && len(missing) == 1 {
			volume = missing[0]
		}
		if volume == "" {
			continue
		}
		what = "it names the volume of a snapshot otherwise than the request did"
		detail = fmt.Sprintf("snapshot %q is reported to be of %q, asked for was %q", member.GetSnapshotId(), member.GetSourceVolumeId(), volume)
		member.SourceVolumeId = volume
	}
	return what, detail
}

// matchVolume is the one of some volumes that a driver's word for a volume is about;
// empty if that cannot be told.
func matchVolume(reported string, volumes []string) (match string) {
	for _, volume := range volumes {
		if reported == "" || !strings.Contains(volume, reported) && !strings.Contains(reported, volume) {
			continue
		}
		if match != "" {
			return ""
		}
		match = volume
	}
	return match
}

// checkSources wants to know of each volume that was asked for which snapshot is
// its own: a claim would be left out in silence, or restored from another's.
func checkSources(asked []string, members []*csipb.Snapshot) string {
	of := make(map[string]string, len(members))
	for _, member := range members {
		volume := member.GetSourceVolumeId()
		switch other, twice := of[volume]; {
		case volume == "":
			return fmt.Sprintf("snapshot %q does not say of which volume it is", member.GetSnapshotId())
		case twice:
			return fmt.Sprintf("snapshots %q and %q are both of volume %q", other, member.GetSnapshotId(), volume)
		}
		of[volume] = member.GetSnapshotId()
	}
	for _, volume := range asked {
		if of[volume] == "" {
			return fmt.Sprintf("there is no snapshot of volume %q", volume)
		}
	}
	return ""
}
