package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/test/world"
)

// takesSnapshots reports whether csi-snapshotter is tested in the scenario.
func (sc *scenario) takesSnapshots() bool {
	return slices.Contains(sc.testedRoles(), "csi-snapshotter")
}

// takeSnapshots takes the scenario's number of snapshots of each wanted claim.
func takeSnapshots(ctx context.Context, r *run) {
	for _, claim := range r.wantedClaims() {
		for i := range max(1, r.scenario.snapshots) {
			r.createSnapshot(ctx, fmt.Sprintf("%s-snapshot-%d", claim, i), snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: &claim})
		}
	}
}

// createSnapshot creates a VolumeSnapshot, which users want from now on.
func (r *run) createSnapshot(ctx context.Context, name string, from snapshotv1.VolumeSnapshotSource) {
	made := &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: name},
		Spec:       snapshotv1.VolumeSnapshotSpec{Source: from, VolumeSnapshotClassName: &r.Namespace},
	}
	if err := r.api.Create(ctx, made); err != nil {
		r.reportViolation(err)
		return
	}
	r.trace.note("snapshot %s was created", name)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wantedSnapshots[name] = true
	r.createdSnapshots = append(r.createdSnapshots, made.UID)
}

// importSnapshot imports the run's pre-provisioned snapshot. It creates the
// VolumeSnapshot before the content that it names, so that the snapshot has to wait.
func importSnapshot(ctx context.Context, r *run) {
	r.importAs(ctx, r.name, r.Namespace+"-"+r.name, r.preProvisioned)
}

// importAs creates a VolumeSnapshot for a snapshot at the driver, and then the content
// that it names.
func (r *run) importAs(ctx context.Context, name, content, handle string) {
	r.createSnapshot(ctx, name, snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: &content})
	err := r.api.Create(ctx, &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: content},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			Driver: r.Name, DeletionPolicy: r.deletionPolicy(), VolumeSnapshotClassName: &r.Namespace,
			Source:            snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: &handle},
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: r.Namespace, Name: name},
		},
	})
	if err != nil {
		r.reportViolation(err)
	}
	r.trace.note("content %s was created", content)
}

// unknownHandle returns the handle of the pre-provisioned snapshot while users have
// not imported it yet, or have deleted the import before it was bound.
func (r *run) unknownHandle() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.createdSnapshots)+len(r.createdGroups) == 0 || r.importDeleted {
		return r.preProvisioned
	}
	return ""
}

func (s *environment) deletionPolicy() snapshotv1.DeletionPolicy {
	if s.scenario.retain {
		return snapshotv1.VolumeSnapshotContentRetain
	}
	return snapshotv1.VolumeSnapshotContentDelete
}

// restoreAll restores each wanted snapshot to a new claim.
func restoreAll(ctx context.Context, r *run) {
	for _, name := range r.snapshotNames() {
		r.createClaimWith(ctx, name+"-restored", func(c *corev1.PersistentVolumeClaim) {
			c.Labels = nil
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: &snapshotv1.SchemeGroupVersion.Group, Kind: "VolumeSnapshot", Name: name}
		})
	}
}

func (r *run) snapshotNames() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.wantedSnapshots))
}

// deleteSnapshots deletes all snapshots without waiting.
func deleteSnapshots(ctx context.Context, r *run) { r.deleteSnapshots(ctx) }

// deleteRetained deletes what policy Retain has left, in the cluster and at the
// driver. As administrators do, it sets policy Delete first.
func deleteRetained(ctx context.Context, r *run) {
	r.deleteRetainedGroups(ctx)
	r.mu.Lock()
	left := slices.Sorted(maps.Keys(r.retained))
	clear(r.retained)
	r.mu.Unlock()
	for _, name := range left {
		content := &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: name}}
		err := r.api.Get(ctx, client.ObjectKeyFromObject(content), content)
		r.deleteRetainedContent(ctx, content, err == nil && content.Spec.VolumeSnapshotRef.UID == "")
	}
}

// deleteRetainedContent deletes a content of a snapshot or a group. If the content was
// never bound, the cluster then knows nothing of the snapshot at the driver any more;
// members of a group are deleted with the group.
func (r *run) deleteRetainedContent(ctx context.Context, content client.Object, unbound bool) {
	if _, single := content.(*snapshotv1.VolumeSnapshotContent); unbound && (!single || !r.scenario.grouped) {
		r.mu.Lock()
		r.importDeleted = true
		r.mu.Unlock()
	}
	policy := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"deletionPolicy":"Delete"}}`))
	err := client.IgnoreNotFound(r.api.Patch(ctx, content, policy))
	if err == nil {
		err = client.IgnoreNotFound(r.api.Delete(ctx, content))
	}
	if err != nil {
		r.reportViolation(err)
	}
	r.trace.note("content %s was deleted with policy Delete", content.GetName())
}

// deleteClasses deletes the snapshot classes. When they are missing, administrators
// create them again with other parameters.
func deleteClasses(ctx context.Context, r *run) {
	name := metav1.ObjectMeta{Name: r.Namespace}
	for _, class := range []client.Object{&snapshotv1.VolumeSnapshotClass{ObjectMeta: name}, &groupv1.VolumeGroupSnapshotClass{ObjectMeta: name}} {
		if err := r.api.Delete(ctx, class); client.IgnoreNotFound(err) != nil {
			r.reportViolation(err)
		}
	}
	r.trace.note("the class was deleted")
}

// deleteSecret deletes the secret for the driver.
func deleteSecret(ctx context.Context, r *run) {
	err := r.Client.CoreV1().Secrets(r.Namespace).Delete(ctx, "snapshots", metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		r.reportViolation(err)
	}
	r.trace.note("the secret was deleted")
}

// createSnapshotClass creates the class and the secret that snapshots need, if they do
// not exist.
func (s *environment) createSnapshotClass(ctx context.Context) error {
	if !s.scenario.takesSnapshots() {
		return nil
	}
	s.mu.Lock()
	s.classes++
	parameters := map[string]string{"class": fmt.Sprint(s.classes)}
	s.mu.Unlock()
	if s.scenario.secret {
		parameters["csi.storage.k8s.io/snapshotter-secret-name"] = "snapshots"
		parameters["csi.storage.k8s.io/snapshotter-secret-namespace"] = s.Namespace
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "snapshots"}, StringData: map[string]string{"key": "value"}}
		if _, err := s.Client.CoreV1().Secrets(s.Namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	name := metav1.ObjectMeta{Name: s.Namespace}
	var class client.Object = &snapshotv1.VolumeSnapshotClass{ObjectMeta: name, Driver: s.Name, DeletionPolicy: s.deletionPolicy(), Parameters: parameters}
	if s.scenario.grouped {
		class = &groupv1.VolumeGroupSnapshotClass{ObjectMeta: name, Driver: s.Name, DeletionPolicy: s.deletionPolicy(), Parameters: parameters}
	}
	return client.IgnoreAlreadyExists(s.api.Create(ctx, class))
}

// noteRetained records which contents may stay when the wanted snapshots are deleted:
// with policy Retain, where those of ready snapshots must stay, or because users
// created the contents and nobody has bound them yet.
func (r *run) noteRetained(ctx context.Context) {
	if !r.scenario.retain && !r.scenario.preProvisioned {
		return
	}
	there, err := r.listSnapshots(ctx)
	if err = errors.Join(err, r.noteRetainedGroups(ctx)); err != nil {
		r.reportViolation(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range there {
		if s := &there[i]; r.wantedSnapshots[s.Name] && (r.scenario.preProvisioned || !r.members[s.Name]) {
			name := ptr.Deref(s.Spec.Source.VolumeSnapshotContentName, snapshot.ContentName(s.UID))
			r.retained[name] = r.scenario.retain && s.Status != nil && ptr.Deref(s.Status.ReadyToUse, false)
		}
	}
}

// compareContents reports snapshots, contents and snapshots at the driver that are not
// as wanted.
func (s *clusterState) compareContents(r *run, kept, retained map[string]bool, found *result) {
	if !s.scenario.takesSnapshots() {
		return
	}
	wrong := func(format string, args ...any) { found.stuck = append(found.stuck, fmt.Sprintf(format, args...)) }
	for i := range s.snapshots {
		if v := &s.snapshots[i]; kept[v.Name] && !s.cannotBeTaken(v) {
			if why := s.snapshotProblem(v); why != "" {
				wrong("snapshot %s %s: %s", v.Name, why, toJSON(v.Status))
			}
		}
	}
	for i := range s.contents {
		content := &s.contents[i]
		if name := content.Spec.VolumeSnapshotRef.Name; !kept[name] && !slices.ContainsFunc(s.snapshots, func(v snapshotv1.VolumeSnapshot) bool { return v.Name == name && s.waitsForUnstartedRestore(&v) }) {
			if _, stays := retained[content.Name]; !stays {
				wrong("content %s exists with the finalizers %v, and nobody wants it: %s", content.Name, content.Finalizers, toJSON(content.Status))
				continue
			}
		}
		if _, stays := retained[content.Name]; stays && !s.scenario.retain {
			if content.Spec.VolumeSnapshotRef.UID != "" {
				wrong("content %s exists without its snapshot", content.Name)
			}
			continue
		}
		if why := s.contentProblem(content); why != "" {
			wrong("content %s %s: %s", content.Name, why, toJSON(content.Status))
		}
	}
	for name, must := range retained {
		if must && s.content(name) == nil {
			wrong("content %s is gone, but must be retained", name)
		}
	}
	for i := range s.claims {
		if c := &s.claims[i]; slices.Contains(c.Finalizers, snapshot.ClaimFinalizer) && !s.hasImpossibleSnapshot(c) {
			wrong("claim %s is protected although all snapshots of it are taken", c.Name)
		}
	}
	s.findOrphans(r.unknownHandle(), found)
	s.findOrphanGroups(r.unknownHandle(), found)
	s.compareNames(r, found)
}

// snapshotProblem returns what is wrong with a wanted snapshot.
func (s *clusterState) snapshotProblem(v *snapshotv1.VolumeSnapshot) string {
	switch status := v.Status; {
	case status == nil || !ptr.Deref(status.ReadyToUse, false):
		return "is not ready"
	case status.Error != nil:
		return "is ready and has an error"
	case status.CreationTime == nil || status.CreationTime.Year() < 2000:
		return "has no creation time"
	case s.content(ptr.Deref(status.BoundVolumeSnapshotContentName, "")) == nil:
		return "has no content"
	default:
		return ""
	}
}

// contentProblem returns what is wrong with a wanted content.
func (s *clusterState) contentProblem(c *snapshotv1.VolumeSnapshotContent) string {
	_, marked := c.Annotations[snapshot.Single.BeingCreated]
	switch status := c.Status; {
	case marked:
		return "has the being-created annotation"
	case !slices.Contains(c.Finalizers, snapshot.Single.Finalizer):
		return "is not protected"
	case status == nil || !ptr.Deref(status.ReadyToUse, false):
		return "is not ready"
	case !s.wasReady(*status.SnapshotHandle):
		return "is ready although the driver has not reported that"
	case status.Error != nil:
		return "is ready and has an error"
	case !slices.ContainsFunc(s.driverSnapshots, func(at csitest.Snapshot) bool { return at.ID == *status.SnapshotHandle }):
		return "is not at the driver"
	default:
		return ""
	}
}

// cannotBeTaken reports whether a snapshot cannot be taken because its claim was
// deleted before the controller saw it. Then the status has an error, and no content
// exists.
func (s *clusterState) cannotBeTaken(v *snapshotv1.VolumeSnapshot) bool {
	claim := ptr.Deref(v.Spec.Source.PersistentVolumeClaimName, "")
	left := slices.ContainsFunc(s.claims, func(c corev1.PersistentVolumeClaim) bool { return c.Name == claim && c.DeletionTimestamp == nil })
	return claim != "" && !left && v.Status != nil && v.Status.Error != nil && s.content(snapshot.ContentName(v.UID)) == nil
}

// hasImpossibleSnapshot reports whether a snapshot of the claim cannot be taken.
func (s *clusterState) hasImpossibleSnapshot(c *corev1.PersistentVolumeClaim) bool {
	return slices.ContainsFunc(s.snapshots, func(v snapshotv1.VolumeSnapshot) bool {
		return ptr.Deref(v.Spec.Source.PersistentVolumeClaimName, "") == c.Name && s.cannotBeTaken(&v)
	})
}

func (s *clusterState) content(name string) *snapshotv1.VolumeSnapshotContent {
	for i := range s.contents {
		if s.contents[i].Name == name {
			return &s.contents[i]
		}
	}
	return nil
}

// findOrphans finds snapshots at the driver to which nothing in the cluster refers: no
// content has the handle or the being-created annotation, and no wanted snapshot would
// request it again. The snapshot with handle spared is not imported yet.
func (s *clusterState) findOrphans(spared string, found *result) {
	for _, at := range s.driverSnapshots {
		if at.GroupID != "" {
			continue // It is deleted with its group.
		}
		referenced := slices.ContainsFunc(s.contents, func(c snapshotv1.VolumeSnapshotContent) bool {
			_, marked := c.Annotations[snapshot.Single.BeingCreated]
			return ptr.Deref(c.Spec.Source.SnapshotHandle, "") == at.ID || c.Status != nil && ptr.Deref(c.Status.SnapshotHandle, "") == at.ID ||
				(marked || c.DeletionTimestamp == nil) && strings.HasSuffix(at.Name, string(c.Spec.VolumeSnapshotRef.UID))
		})
		if !referenced && at.ID != s.snapshot && at.ID != spared {
			found.leaks = append(found.leaks, fmt.Sprintf("snapshot %s, named %s", at.ID, at.Name))
		}
	}
}

// compareNames reports names of snapshots in the driver's requests that belong to no
// snapshot of the run.
func (s *clusterState) compareNames(r *run, found *result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.requestedNames {
		if !r.scenario.scheduled && !slices.ContainsFunc(r.createdSnapshots, func(uid types.UID) bool { return name == "snapshot-"+string(uid) }) &&
			!slices.ContainsFunc(r.createdGroups, func(uid types.UID) bool { return name == "groupsnapshot-"+string(uid) }) {
			found.stuck = append(found.stuck, fmt.Sprintf("the driver got a request for %s, which is no snapshot of this run", name))
		}
	}
}

// toJSON formats a status.
func toJSON[T any](status *T) string {
	if status == nil {
		return "no status"
	}
	text, err := json.Marshal(status)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// checkClaimProtected reports a claim that is not protected while the driver takes a
// snapshot of it.
func (s *environment) checkClaimProtected(ctx context.Context, req *csipb.CreateSnapshotRequest) {
	s.noteName(req.GetName())
	hold, err := s.claimProtection(ctx, req.GetSourceVolumeId(), snapshot.ClaimFinalizer)
	if err != nil || hold == protected || s.existsAtDriver(req.GetName()) {
		return
	}
	there, err := s.listSnapshots(ctx)
	waits := func(v snapshotv1.VolumeSnapshot) bool {
		return strings.HasSuffix(req.GetName(), string(v.UID)) && (v.DeletionTimestamp == nil || !s.scenario.retain)
	}
	if err != nil || !slices.ContainsFunc(there, waits) {
		return // With policy Retain it is taken although nobody waits for it any more.
	}
	s.reportViolation(fmt.Errorf("a snapshot of %s is being taken, and its claim is not protected", req.GetSourceVolumeId()))
}

// noteName records a name that the driver got in a request.
func (s *environment) noteName(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requestedNames[name] = true
}

// existsAtDriver reports whether the driver has a snapshot of that name.
func (s *environment) existsAtDriver(name string) bool {
	for _, at := range s.Driver.Snapshots() {
		if at.Name == name {
			return true
		}
	}
	return false
}

// noteReady records which snapshots the driver has reported as ready.
func (s *environment) noteReady(resp any) {
	var all []*csipb.Snapshot
	var ready []string
	switch r := resp.(type) {
	case *csipb.CreateSnapshotResponse:
		all = append(all, r.GetSnapshot())
	case *csipb.GetSnapshotResponse:
		all = append(all, r.GetSnapshot())
	case *csipb.ListSnapshotsResponse:
		for _, e := range r.GetEntries() {
			all = append(all, e.GetSnapshot())
		}
	case *csipb.CreateVolumeGroupSnapshotResponse:
		all, ready = groupSnapshots(r.GetGroupSnapshot())
	case *csipb.GetVolumeGroupSnapshotResponse:
		all, ready = groupSnapshots(r.GetGroupSnapshot())
	}
	for _, one := range all {
		if one.GetReadyToUse() {
			ready = append(ready, one.GetSnapshotId())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ready {
		s.ready[id] = true
	}
}

func (s *environment) wasReady(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready[id]
}

// cleanUpSnapshots deletes what a failed run has left of snapshots, in the cluster and
// at the driver.
func (s *environment) cleanUpSnapshots(ctx context.Context, there *clusterState) (errs []error) {
	for i := range there.contents {
		errs = append(errs, world.ForceDelete(ctx, s.api, &there.contents[i]))
	}
	errs = append(errs, s.cleanUpSchedules(ctx))
	errs = append(errs, s.cleanUpGroups(ctx, there)...)
	for i := range there.claims {
		_, err := s.Client.CoreV1().PersistentVolumeClaims(s.Namespace).Patch(ctx, there.claims[i].Name, types.MergePatchType,
			[]byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
		errs = append(errs, client.IgnoreNotFound(err))
	}
	return errs
}

// cannotBeRestored reports whether a claim cannot get a volume, because its snapshot
// was deleted before a provisioner started to restore it. If the snapshot waits for
// the claim, its status says so, and it is deleted with the claim.
func (s *clusterState) cannotBeRestored(c *corev1.PersistentVolumeClaim) bool {
	from := c.Spec.DataSource
	return s.scenario.takesSnapshots() && from != nil && from.Kind == "VolumeSnapshot" && c.Status.Phase == corev1.ClaimPending &&
		!slices.ContainsFunc(s.snapshots, func(v snapshotv1.VolumeSnapshot) bool { return v.Name == from.Name && !s.waitsForUnstartedRestore(&v) })
}

// waitsForUnstartedRestore reports whether a deleted snapshot waits for a claim whose
// provisioner has not started, and does not start from a deleted snapshot any more.
func (s *clusterState) waitsForUnstartedRestore(v *snapshotv1.VolumeSnapshot) bool {
	return v.DeletionTimestamp != nil && !slices.Contains(v.Finalizers, kube.SnapshotSourceFinalizer) &&
		slices.ContainsFunc(s.claims, func(c corev1.PersistentVolumeClaim) bool {
			from := c.Spec.DataSource
			return from != nil && from.Kind == "VolumeSnapshot" && from.Name == v.Name && c.Status.Phase == corev1.ClaimPending
		})
}
