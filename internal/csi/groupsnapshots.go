package csi

import (
	"context"
	"fmt"
	"slices"
	"strings"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// CreateVolumeGroupSnapshot creates a snapshot of each source volume at the same
// point in time, under the request's name, or finds the existing group
// ("CreateVolumeGroupSnapshot": idempotent by name). It waits for other calls with
// the same name. While ready_to_use is false the driver is still working on it, and
// the caller repeats the request. A response is an [InvalidResponse], with all ids
// that it has, if it lacks the group's id or does not have exactly one snapshot for
// each source. The returned members have the source ids of the request, where the
// driver's own ids can be matched with them. Unknown creation times are nil, of the
// group and of each member.
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
// the group does not exist, InvalidArgument that it has other members than the
// request. It waits for other calls about the id.
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
		d.logDeviation(ctx, GetVolumeGroupSnapshot, "a group has another id than in the request",
			fmt.Sprintf("requested %q, reported %q", req.GetGroupSnapshotId(), got))
	}
	d.normalizeGroup(ctx, GetVolumeGroupSnapshot, group)
	return group, nil
}

// invalidGroup is the error for a group that cannot be used.
func (d *Driver) invalidGroup(method Method, group *csipb.VolumeGroupSnapshot, reason string) *Error {
	bad := &InvalidResponse{ID: group.GetGroupSnapshotId(), Reason: reason}
	for _, member := range group.GetSnapshots() {
		if id := member.GetSnapshotId(); id != "" {
			bad.MemberIDs = append(bad.MemberIDs, id)
		}
	}
	return d.fail(method, bad)
}

// normalizeGroup logs the deviations of a group that is accepted, and sets invalid
// values to unknown.
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

// knownTime returns nil for a time that the driver does not know. Such drivers
// leave it out or send the zero value of their language: the start of 1970, or of
// the year 1.
func knownTime(at *timestamppb.Timestamp) *timestamppb.Timestamp {
	if at.GetSeconds() <= 0 {
		return nil
	}
	return at
}

func validTime(at *timestamppb.Timestamp) bool { return knownTime(at) == nil || at.CheckValid() == nil }

// checkGroup checks the ids that are needed to follow and delete a group and its
// members.
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
			return fmt.Sprintf("snapshot %q is listed twice", id)
		}
		seen[id] = true
	}
	return ""
}

// normalizeSources replaces the source ids of the members with those of the
// request, for drivers that report them under another id. A reported id matches a
// requested one if one contains the other and no second requested id matches. If
// one member and one requested id are left over, they match too.
func normalizeSources(requested []string, members []*csipb.Snapshot) (what, detail string) {
	missing, unmatched := slices.Clone(requested), []*csipb.Snapshot(nil)
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
		what = "the source volume of a snapshot has another id than in the request"
		detail = fmt.Sprintf("snapshot %q is reported with source %q, requested was %q", member.GetSnapshotId(), member.GetSourceVolumeId(), volume)
		member.SourceVolumeId = volume
	}
	return what, detail
}

// matchVolume returns the only volume that a reported id can stand for, or "".
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

// checkSources checks that each requested volume has one snapshot. Otherwise a
// claim would silently be left out, or be restored from the snapshot of another
// one.
func checkSources(requested []string, members []*csipb.Snapshot) string {
	of := make(map[string]string, len(members))
	for _, member := range members {
		volume := member.GetSourceVolumeId()
		switch other, twice := of[volume]; {
		case volume == "":
			return fmt.Sprintf("snapshot %q has no source volume", member.GetSnapshotId())
		case twice:
			return fmt.Sprintf("snapshots %q and %q have the same source volume %q", other, member.GetSnapshotId(), volume)
		}
		of[volume] = member.GetSnapshotId()
	}
	for _, volume := range requested {
		if of[volume] == "" {
			return fmt.Sprintf("there is no snapshot of volume %q", volume)
		}
	}
	return ""
}
