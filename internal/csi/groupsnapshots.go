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
	answer, err := send(ctx, d, about{CreateVolumeGroupSnapshot, groupNamed(req.GetName())}, d.group.CreateVolumeGroupSnapshot, req)
	if err != nil {
		return nil, err
	}
	group := answer.GetGroupSnapshot()
	if reason := checkGroup(group); reason != "" {
		return nil, d.badGroup(CreateVolumeGroupSnapshot, group, reason)
	}
	what, detail := rename(req.GetSourceVolumeIds(), group.GetSnapshots())
	d.odd(ctx, CreateVolumeGroupSnapshot, what, detail)
	if reason := checkSources(req.GetSourceVolumeIds(), group.GetSnapshots()); reason != "" {
		return nil, d.badGroup(CreateVolumeGroupSnapshot, group, reason)
	}
	d.oddGroup(ctx, CreateVolumeGroupSnapshot, group)
	return group, nil
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
	if reason := checkGroup(group); reason != "" {
		return nil, d.badGroup(GetVolumeGroupSnapshot, group, reason)
	}
	if got := group.GetGroupSnapshotId(); got != req.GetGroupSnapshotId() {
		d.odd(ctx, GetVolumeGroupSnapshot, "it names a group otherwise than the request did",
			fmt.Sprintf("asked for was %q, reported is %q", req.GetGroupSnapshotId(), got))
	}
	d.oddGroup(ctx, GetVolumeGroupSnapshot, group)
	return group, nil
}

// badGroup makes an error of a reason for which a group cannot be used.
func (d *Driver) badGroup(method Method, group *csipb.VolumeGroupSnapshot, reason string) *Error {
	bad := &InvalidResponse{ID: group.GetGroupSnapshotId(), Reason: reason}
	for _, member := range group.GetSnapshots() {
		if id := member.GetSnapshotId(); id != "" {
			bad.MemberIDs = append(bad.MemberIDs, id)
		}
	}
	return d.fail(method, bad)
}

// oddGroup logs what is odd about a group that is taken, and makes unknown what
// cannot be meant.
func (d *Driver) oddGroup(ctx context.Context, method Method, group *csipb.VolumeGroupSnapshot) {
	id := group.GetGroupSnapshotId()
	if !validTime(group.GetCreationTime()) {
		d.odd(ctx, method, "the creation time of a group is invalid", fmt.Sprintf("group %q was created at %v", id, group.GetCreationTime()))
		group.CreationTime = nil
	}
	group.CreationTime = told(group.GetCreationTime())
	for _, member := range group.GetSnapshots() {
		if of := member.GetGroupSnapshotId(); of != "" && of != id {
			d.odd(ctx, method, "a snapshot of a group names another group", fmt.Sprintf("snapshot %q of group %q names %q", member.GetSnapshotId(), id, of))
		}
		d.oddSnapshot(ctx, method, member)
		member.CreationTime = told(member.GetCreationTime())
	}
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

func validTime(at *timestamppb.Timestamp) bool { return told(at) == nil || at.CheckValid() == nil }

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

// rename has the members name their sources as they were asked for, where drivers
// name a source in words of their own: one that contains the other, and no other
// one, is meant; and what is left over on both sides belongs together.
func rename(asked []string, members []*csipb.Snapshot) (what, detail string) {
	missing, odd := slices.Clone(asked), []*csipb.Snapshot(nil)
	for _, member := range members {
		if at := slices.Index(missing, member.GetSourceVolumeId()); at >= 0 {
			missing = slices.Delete(missing, at, at+1)
		} else {
			odd = append(odd, member)
		}
	}
	for _, member := range odd {
		meant := meantBy(member.GetSourceVolumeId(), missing)
		if len(odd) == 1 && len(missing) == 1 {
			meant = missing[0]
		}
		if meant == "" {
			continue
		}
		what = "it names the volume of a snapshot otherwise than the request did"
		detail = fmt.Sprintf("snapshot %q is reported to be of %q, asked for was %q", member.GetSnapshotId(), member.GetSourceVolumeId(), meant)
		member.SourceVolumeId = meant
	}
	return what, detail
}

// meantBy is the one of some volumes that a driver's word for a volume is about;
// empty if that cannot be told.
func meantBy(word string, volumes []string) (meant string) {
	for _, volume := range volumes {
		if word == "" || !strings.Contains(volume, word) && !strings.Contains(word, volume) {
			continue
		}
		if meant != "" {
			return ""
		}
		meant = volume
	}
	return meant
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
