package crash

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/test/world"
)

// createRestoreSource creates the snapshot that all runs restore: one at the driver
// whose source volume is deleted. Each run creates its own objects for it.
func (s *environment) createRestoreSource(t *testing.T) {
	t.Helper()
	var err error
	if s.snapshot, err = s.createSnapshotAtDriver(t.Context(), "snapshot"); err != nil {
		t.Fatal(err)
	}
}

// createPreProvisioned creates the run's snapshot at the driver only.
func (r *run) createPreProvisioned(ctx context.Context) (err error) {
	if !r.scenario.preProvisioned {
		return nil
	}
	if r.scenario.grouped {
		if err := r.deleteGroupsAtDriver(ctx); err != nil {
			return err
		}
		r.preProvisioned, err = r.createGroupAtDriver(ctx)
		return err
	}
	for _, at := range r.Driver.Snapshots() { // They are left from the last run.
		if err := r.csi.WithPrecondition(csi.Unconditional).DeleteSnapshot(ctx, &csipb.DeleteSnapshotRequest{SnapshotId: at.ID}); err != nil {
			return err
		}
	}
	r.preProvisioned, err = r.createSnapshotAtDriver(ctx, r.name)
	return err
}

// createSnapshotAtDriver creates a snapshot, deletes its source volume, and returns
// the handle.
func (s *environment) createSnapshotAtDriver(ctx context.Context, name string) (string, error) {
	volume, err := s.createSourceAtDriver(ctx, "source")
	if err != nil {
		return "", err
	}
	made, err := s.csi.CreateSnapshot(ctx, &csipb.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
	if err != nil {
		return "", err
	}
	return made.GetSnapshotId(), s.csi.WithPrecondition(csi.Unconditional).DeleteVolume(ctx, &csipb.DeleteVolumeRequest{VolumeId: volume})
}

// createSourceAtDriver creates a volume at the driver only, and returns its handle.
func (s *environment) createSourceAtDriver(ctx context.Context, name string) (string, error) {
	volume, err := s.csi.CreateVolume(ctx, world.VolumeRequest(name))
	if err != nil {
		return "", err
	}
	return volume.GetVolumeId(), nil
}

// createSourceSnapshot creates the objects of the run's snapshot, which has the run's
// name and is wanted from now on.
func (r *run) createSourceSnapshot(ctx context.Context) error {
	if !r.scenario.restores {
		return nil
	}
	r.wantedSnapshots[r.name] = true
	_, _, err := r.CreateSnapshotObjects(ctx, r.api, r.name, r.snapshot)
	return err
}

// deleteSnapshots deletes the run's snapshots, which nobody wants any more.
func (r *run) deleteSnapshots(ctx context.Context) {
	if r.api == nil {
		return
	}
	r.noteRetained(ctx)
	r.deleteSchedule(ctx)
	r.deleteGroups(ctx)
	for _, name := range r.snapshotNames() {
		r.mu.Lock()
		delete(r.wantedSnapshots, name)
		r.mu.Unlock()
		snapshot := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: name}}
		if err := r.api.Delete(ctx, snapshot); client.IgnoreNotFound(err) != nil {
			r.reportViolation(err)
		}
		r.trace.note("snapshot %s was deleted", name)
	}
}

// deleteContent deletes the content as a snapshot-controller would in the end.
func (r *run) deleteContent(ctx context.Context) {
	if !r.scenario.restores {
		return
	}
	content := &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: r.Namespace + "-" + r.name}}
	if err := r.api.Delete(ctx, content); client.IgnoreNotFound(err) != nil {
		r.reportViolation(err)
	}
}

// listSnapshots returns the VolumeSnapshots of the environment.
func (s *environment) listSnapshots(ctx context.Context) ([]snapshotv1.VolumeSnapshot, error) {
	if s.api == nil {
		return nil, nil
	}
	list := &snapshotv1.VolumeSnapshotList{}
	err := s.api.List(ctx, list, client.InNamespace(s.Namespace))
	return list.Items, err
}

// forceDeleteSnapshot deletes a snapshot in spite of its finalizers.
func (s *environment) forceDeleteSnapshot(ctx context.Context, snapshot *snapshotv1.VolumeSnapshot) error {
	return world.ForceDelete(ctx, s.api, snapshot)
}

// compareSnapshots reports snapshots that do not exist although they are wanted, or
// are still protected by a provisioner.
func (s *clusterState) compareSnapshots(want map[string]bool) (wrong []string) {
	left := map[string]bool{}
	for i := range s.snapshots {
		name := s.snapshots[i].Name
		left[name] = true
		switch {
		case !want[name] && s.waitsForUnstartedRestore(&s.snapshots[i]):
		case !want[name]:
			wrong = append(wrong, fmt.Sprintf("snapshot %s exists and nobody wants it", name))
		case slices.Contains(s.snapshots[i].Finalizers, kube.SnapshotSourceFinalizer):
			wrong = append(wrong, fmt.Sprintf("snapshot %s is protected although nothing is restored from it", name))
		}
	}
	for name := range want {
		if !left[name] {
			wrong = append(wrong, fmt.Sprintf("snapshot %s is gone although it is wanted", name))
		}
	}
	return wrong
}

// protection says whether the source of a volume is protected from deletion.
type protection int

const (
	noSource    protection = iota // or it was gone before the call, which the driver would report
	unprotected                   // it can be deleted
	protected
)

// sourceProtection returns the protection of the source of a CreateVolume request.
func (s *environment) sourceProtection(ctx context.Context, create *csipb.CreateVolumeRequest) (protection, error) {
	switch content := create.GetVolumeContentSource(); {
	case content.GetSnapshot() != nil:
		return s.snapshotProtection(ctx, content.GetSnapshot().GetSnapshotId())
	case content.GetVolume() != nil:
		return s.claimProtection(ctx, content.GetVolume().GetVolumeId(), kube.CloneSourceFinalizer)
	default:
		return noSource, nil
	}
}

// snapshotProtection reports whether a provisioner protects the snapshot with a
// handle.
func (s *environment) snapshotProtection(ctx context.Context, handle string) (protection, error) {
	contents, err := s.ListContents(ctx, s.api)
	if err != nil {
		return noSource, err
	}
	for i := range contents {
		if status, ref := contents[i].Status, contents[i].Spec.VolumeSnapshotRef; status != nil && ptr.Deref(status.SnapshotHandle, "") == handle {
			of := &snapshotv1.VolumeSnapshot{}
			err := s.api.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, of)
			if apierrors.IsNotFound(err) {
				continue // It belongs to an earlier run.
			}
			return protectionOf(of, kube.SnapshotSourceFinalizer), err
		}
	}
	return noSource, nil
}

// claimProtection reports whether the claim of a volume has a finalizer.
func (s *environment) claimProtection(ctx context.Context, handle, finalizer string) (protection, error) {
	volumes, err := s.ListPVs(ctx)
	if err != nil {
		return noSource, err
	}
	for i := range volumes {
		ref := volumes[i].Spec.ClaimRef
		if volumes[i].Spec.CSI.VolumeHandle != handle || ref == nil {
			continue
		}
		claim, err := s.Client.CoreV1().PersistentVolumeClaims(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err != nil || claim.UID != ref.UID {
			return noSource, client.IgnoreNotFound(err)
		}
		return protectionOf(claim, finalizer), nil
	}
	return noSource, nil
}

func protectionOf(object client.Object, finalizer string) protection {
	switch {
	case slices.Contains(object.GetFinalizers(), finalizer):
		return protected
	case object.GetDeletionTimestamp() != nil:
		return noSource
	default:
		return unprotected
	}
}

// noteForbidden records that a process may not protect snapshots. The provisioner then
// restores them without protection: some installations do not grant that permission.
func (s *environment) noteForbidden(resource string, status int) {
	if resource == "volumesnapshots" && status == http.StatusForbidden {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.snapshotsForbidden = true
	}
}

// mayBeUnprotected reports whether the source of a volume need not be protected.
func (s *environment) mayBeUnprotected(create *csipb.CreateVolumeRequest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshotsForbidden && create.GetVolumeContentSource().GetSnapshot() != nil
}

// checkSource checks the source of a volume when the call arrives and when the driver
// is done: it must be protected all that time.
func (s *environment) checkSource(ctx context.Context, create *csipb.CreateVolumeRequest, before protection) protection {
	now, err := s.sourceProtection(ctx, create)
	if err == nil && (now == unprotected || before == protected && now != protected) && !s.mayBeUnprotected(create) {
		err = fmt.Errorf("volume %s is created from an unprotected source", create.GetName())
	}
	if err != nil && ctx.Err() == nil {
		s.reportViolation(err)
	}
	return now
}

// quietPeriod is how long nothing happens before a delayed call continues.
const quietPeriod = 100 * time.Millisecond

// waitForQuiet delays a call until everything else is idle, or its caller has given
// up.
func (s *environment) waitForQuiet(ctx context.Context) error {
	for !s.trace.isIdle(s.scenario.watchDelay + quietPeriod) {
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-time.After(pollInterval):
		}
	}
	return nil
}
