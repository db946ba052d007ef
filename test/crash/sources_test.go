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

// createRestoreSource makes what all runs of a stage restore: a snapshot at the driver
// whose volume is gone. The objects for it are made anew for every run.
func (s *environment) createRestoreSource(t *testing.T) {
	t.Helper()
	var err error
	if s.snapshot, err = s.createSnapshotAtDriver(t.Context(), "snapshot"); err != nil {
		t.Fatal(err)
	}
}

// createPreProvisioned makes the run's snapshot at the driver, of which the cluster knows
// nothing.
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
	for _, at := range r.Driver.Snapshots() { // Of the last run, whose users have forgotten it.
		if err := r.csi.WithPrecondition(csi.Unconditional).DeleteSnapshot(ctx, &csipb.DeleteSnapshotRequest{SnapshotId: at.ID}); err != nil {
			return err
		}
	}
	r.preProvisioned, err = r.createSnapshotAtDriver(ctx, r.name)
	return err
}

// createSnapshotAtDriver makes a snapshot whose volume is gone, and returns its handle.
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

// createSourceAtDriver makes a volume at the driver, of which the cluster knows nothing, and
// returns its handle.
func (s *environment) createSourceAtDriver(ctx context.Context, name string) (string, error) {
	volume, err := s.csi.CreateVolume(ctx, world.VolumeRequest(name))
	if err != nil {
		return "", err
	}
	return volume.GetVolumeId(), nil
}

// createSourceSnapshot makes the run's snapshot, which is wanted from now on. It has the
// run's name.
func (r *run) createSourceSnapshot(ctx context.Context) error {
	if !r.scenario.restores {
		return nil
	}
	r.wantedSnapshots[r.name] = true
	_, _, err := r.CreateSnapshotObjects(ctx, r.api, r.name, r.snapshot)
	return err
}

// deleteSnapshots deletes the run's snapshots, which nobody wants from now on.
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

// deleteContent does what the snapshot controller would do in the end.
func (r *run) deleteContent(ctx context.Context) {
	if !r.scenario.restores {
		return
	}
	content := &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: r.Namespace + "-" + r.name}}
	if err := r.api.Delete(ctx, content); client.IgnoreNotFound(err) != nil {
		r.reportViolation(err)
	}
}

// listSnapshots are those of the stage.
func (s *environment) listSnapshots(ctx context.Context) ([]snapshotv1.VolumeSnapshot, error) {
	if s.api == nil {
		return nil, nil
	}
	list := &snapshotv1.VolumeSnapshotList{}
	err := s.api.List(ctx, list, client.InNamespace(s.Namespace))
	return list.Items, err
}

// forceDeleteSnapshot deletes a snapshot that is held.
func (s *environment) forceDeleteSnapshot(ctx context.Context, snapshot *snapshotv1.VolumeSnapshot) error {
	return world.ForceDelete(ctx, s.api, snapshot)
}

// compareSnapshots tells which snapshots are not as wanted: there, and free to
// be deleted.
func (s *clusterState) compareSnapshots(want map[string]bool) (wrong []string) {
	left := map[string]bool{}
	for i := range s.snapshots {
		name := s.snapshots[i].Name
		left[name] = true
		switch {
		case !want[name] && s.waitsForUnstartedRestore(&s.snapshots[i]):
		case !want[name]:
			wrong = append(wrong, fmt.Sprintf("snapshot %s is there and nobody wants it", name))
		case slices.Contains(s.snapshots[i].Finalizers, kube.SnapshotSourceFinalizer):
			wrong = append(wrong, fmt.Sprintf("snapshot %s is protected and nothing is restored from it", name))
		}
	}
	for name := range want {
		if !left[name] {
			wrong = append(wrong, fmt.Sprintf("snapshot %s is gone and was wanted", name))
		}
	}
	return wrong
}

// A protection is what keeps the source that a volume is being filled from.
type protection int

const (
	noSource    protection = iota // or it has gone before the call came, which the driver would say
	unprotected                   // anybody can delete it
	protected
)

// sourceProtection looks at what a volume is being filled from.
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

// snapshotProtection looks whether the snapshot of a handle is kept for a provisioner.
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
				continue // It is that of an earlier run.
			}
			return protectionOf(of, kube.SnapshotSourceFinalizer), err
		}
	}
	return noSource, nil
}

// claimProtection looks whether the claim of a volume bears a finalizer.
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

// noteForbidden keeps that a process was told that it has no right to protect snapshots. The
// provisioner goes on without then: some install it so.
func (s *environment) noteForbidden(resource string, status int) {
	if resource == "volumesnapshots" && status == http.StatusForbidden {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.snapshotsForbidden = true
	}
}

// mayBeUnprotected tells whether what a volume is filled from need not be protected.
func (s *environment) mayBeUnprotected(create *csipb.CreateVolumeRequest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshotsForbidden && create.GetVolumeContentSource().GetSnapshot() != nil
}

// checkSource looks at what a volume is being filled from, when the call comes and
// when the driver has done its work: it must be held all that time.
func (s *environment) checkSource(ctx context.Context, create *csipb.CreateVolumeRequest, before protection) protection {
	now, err := s.sourceProtection(ctx, create)
	if err == nil && (now == unprotected || before == protected && now != protected) && !s.mayBeUnprotected(create) {
		err = fmt.Errorf("volume %s is being filled from what nobody protects", create.GetName())
	}
	if err != nil && ctx.Err() == nil {
		s.reportViolation(err)
	}
	return now
}

// quietPeriod is how long nothing happens before a call that is held up goes on.
const quietPeriod = 100 * time.Millisecond

// waitForQuiet holds up a call until nothing else happens, or until nobody waits for
// its answer any more.
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
