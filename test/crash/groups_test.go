package crash

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/test/world"
)

// runLabel is on the claims of a run, so that a group selects only them.
const runLabel = "example.com/run"

// takeGroupSnapshot takes a group snapshot of all wanted claims.
func takeGroupSnapshot(ctx context.Context, r *run) {
	uid := r.createGroup(ctx, groupv1.VolumeGroupSnapshotSource{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{runLabel: r.name}}})
	volumes, err := r.ListPVs(ctx)
	if err != nil {
		r.reportViolation(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range volumes {
		if ref := volumes[i].Spec.ClaimRef; r.wanted[ref.Name] == ref.UID {
			member, _ := snapshot.MemberNames(uid, volumes[i].Spec.CSI.VolumeHandle)
			r.wantedSnapshots[member], r.members[member] = true, true
		}
	}
}

// createGroup creates a VolumeGroupSnapshot with the run's name, which users want from
// now on.
func (r *run) createGroup(ctx context.Context, from groupv1.VolumeGroupSnapshotSource) types.UID {
	made := &groupv1.VolumeGroupSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: r.name},
		Spec:       groupv1.VolumeGroupSnapshotSpec{Source: from, VolumeGroupSnapshotClassName: &r.Namespace},
	}
	if err := r.api.Create(ctx, made); err != nil {
		r.reportViolation(err)
		return ""
	}
	r.trace.note("group snapshot %s was created", made.Name)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wantedGroups[made.Name] = made.UID
	r.createdGroups = append(r.createdGroups, made.UID)
	return made.UID
}

// importGroup imports the run's pre-provisioned group snapshot and its members. It
// creates the objects that name a content before the content, so that they have to
// wait.
func importGroup(ctx context.Context, r *run) {
	content := r.Namespace + "-" + r.name
	r.createGroup(ctx, groupv1.VolumeGroupSnapshotSource{VolumeGroupSnapshotContentName: &content})
	var handles []string
	for _, at := range r.Driver.Snapshots() {
		if at.GroupID == r.preProvisioned {
			handles = append(handles, at.ID)
			r.importMember(ctx, at.ID)
		}
	}
	err := r.api.Create(ctx, &groupv1.VolumeGroupSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: content},
		Spec: groupv1.VolumeGroupSnapshotContentSpec{
			Driver: r.Name, DeletionPolicy: r.deletionPolicy(), VolumeGroupSnapshotClassName: &r.Namespace,
			Source: groupv1.VolumeGroupSnapshotContentSource{GroupSnapshotHandles: &groupv1.GroupSnapshotHandles{
				VolumeGroupSnapshotHandle: r.preProvisioned, VolumeSnapshotHandles: handles,
			}},
			VolumeGroupSnapshotRef: corev1.ObjectReference{Namespace: r.Namespace, Name: r.name},
		},
	})
	if err != nil {
		r.reportViolation(err)
	}
	r.trace.note("content %s was created", content)
}

func (r *run) importMember(ctx context.Context, handle string) {
	name := r.name + "-" + handle
	content := r.Namespace + "-" + name
	r.importAs(ctx, name, content, handle)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members[name] = true
}

// noteRetainedGroups records which contents of groups may stay, as noteRetained does
// for single snapshots. Members may exist before the group knows them.
func (r *run) noteRetainedGroups(ctx context.Context) error {
	for _, name := range r.groupNames() {
		group := &groupv1.VolumeGroupSnapshot{}
		err := r.api.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: name}, group)
		if client.IgnoreNotFound(err) != nil {
			return err
		}
		ready := r.scenario.retain && group.Status != nil && ptr.Deref(group.Status.ReadyToUse, false)
		r.mu.Lock()
		r.retainedGroups[ptr.Deref(group.Spec.Source.VolumeGroupSnapshotContentName, snapshot.GroupContentName(r.wantedGroups[name]))] = ready
		for member := range r.members {
			if !r.scenario.preProvisioned {
				r.retained[snapshot.MemberContentName(member)] = ready
			}
		}
		r.mu.Unlock()
	}
	return nil
}

// deleteGroups deletes the run's group snapshots, which nobody wants any more. Their
// members are deleted with them.
func (r *run) deleteGroups(ctx context.Context) {
	for _, name := range r.groupNames() {
		r.mu.Lock()
		delete(r.wantedGroups, name)
		if !r.scenario.preProvisioned {
			maps.DeleteFunc(r.wantedSnapshots, func(snapshot string, _ bool) bool { return r.members[snapshot] })
		}
		r.mu.Unlock()
		group := &groupv1.VolumeGroupSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: name}}
		if err := r.api.Delete(ctx, group); client.IgnoreNotFound(err) != nil {
			r.reportViolation(err)
		}
		r.trace.note("group snapshot %s was deleted", name)
	}
}

func (r *run) groupNames() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.wantedGroups))
}

// deleteRetainedGroups deletes what policy Retain has left of groups, with their
// members at the driver.
func (r *run) deleteRetainedGroups(ctx context.Context) {
	r.mu.Lock()
	left := slices.Sorted(maps.Keys(r.retainedGroups))
	clear(r.retainedGroups)
	r.mu.Unlock()
	for _, name := range left {
		content := &groupv1.VolumeGroupSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: name}}
		err := r.api.Get(ctx, client.ObjectKeyFromObject(content), content)
		r.deleteRetainedContent(ctx, content, err == nil && content.Spec.VolumeGroupSnapshotRef.UID == "")
	}
}

// checkGroupProtected reports claims that are not protected while the driver takes a
// group snapshot of them.
func (s *environment) checkGroupProtected(ctx context.Context, req *csipb.CreateVolumeGroupSnapshotRequest) {
	s.noteName(req.GetName())
	var free []string
	for _, volume := range req.GetSourceVolumeIds() {
		hold, err := s.claimProtection(ctx, volume, snapshot.ClaimFinalizer)
		if err == nil && hold == unprotected {
			free = append(free, volume)
		}
	}
	isCut := func(at csitest.Group) bool { return at.Name == req.GetName() }
	if len(free) == 0 || slices.ContainsFunc(s.Driver.Groups(), isCut) {
		return
	}
	there := &groupv1.VolumeGroupSnapshotList{}
	err := s.api.List(ctx, there, client.InNamespace(s.Namespace))
	waits := func(g groupv1.VolumeGroupSnapshot) bool {
		return strings.HasSuffix(req.GetName(), string(g.UID)) && (g.DeletionTimestamp == nil || !s.scenario.retain)
	}
	if err != nil || !slices.ContainsFunc(there.Items, waits) {
		return // With policy Retain it is taken although nobody waits for it any more.
	}
	s.reportViolation(fmt.Errorf("%s is being taken, and the claims of %v are not protected", req.GetName(), free))
}

// createGroupAtDriver creates the run's group snapshot at the driver only, and deletes
// its source volumes.
func (r *run) createGroupAtDriver(ctx context.Context) (handle string, err error) {
	var sources []string
	for i := range 2 {
		volume, err := r.createSourceAtDriver(ctx, fmt.Sprintf("source-%d", i))
		if err != nil {
			return "", err
		}
		sources = append(sources, volume)
	}
	made, err := r.csi.CreateVolumeGroupSnapshot(ctx, &csipb.CreateVolumeGroupSnapshotRequest{Name: r.name, SourceVolumeIds: sources})
	if err != nil {
		return "", err
	}
	for _, volume := range sources {
		if err := r.csi.WithPrecondition(csi.Unconditional).DeleteVolume(ctx, &csipb.DeleteVolumeRequest{VolumeId: volume}); err != nil {
			return "", err
		}
	}
	return made.GetGroupSnapshotId(), nil
}

// deleteGroupsAtDriver deletes all groups at the driver.
func (s *environment) deleteGroupsAtDriver(ctx context.Context) error {
	for _, at := range s.Driver.Groups() {
		if err := s.csi.WithPrecondition(csi.Unconditional).DeleteVolumeGroupSnapshot(ctx, &csipb.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: at.ID, SnapshotIds: at.MemberIDs}); err != nil {
			return err
		}
	}
	return nil
}

// groupSnapshots returns the members in a driver's response, and the group's own
// handle if the group is ready.
func groupSnapshots(g *csipb.VolumeGroupSnapshot) (members []*csipb.Snapshot, ready []string) {
	if g.GetReadyToUse() {
		ready = append(ready, g.GetGroupSnapshotId())
	}
	return g.GetSnapshots(), ready
}

// cleanUpGroups deletes what a failed run has left of groups in the cluster.
func (s *environment) cleanUpGroups(ctx context.Context, there *clusterState) (errs []error) {
	remove := func(o client.Object) { errs = append(errs, world.ForceDelete(ctx, s.api, o)) }
	for i := range there.groups {
		remove(&there.groups[i])
	}
	for i := range there.groupContents {
		remove(&there.groupContents[i])
	}
	return errs
}
