package crash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// cutSnapshot makes what all runs of a stage restore: a snapshot at the driver
// whose volume is gone. The objects for it are made anew for every run.
func (s *stage) cutSnapshot(t *testing.T) {
	t.Helper()
	s.api = s.Snapshots(t)
	driver, err := csi.Connect(t.Context(), csi.Options{Address: s.Socket})
	if err != nil {
		t.Fatal(err)
	}
	defer driver.Close()
	if _, err := driver.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	volume, err := driver.CreateVolume(t.Context(), &csipb.CreateVolumeRequest{
		Name: "source", VolumeCapabilities: []*csipb.VolumeCapability{{
			AccessType: &csipb.VolumeCapability_Mount{Mount: &csipb.VolumeCapability_MountVolume{}},
			AccessMode: &csipb.VolumeCapability_AccessMode{Mode: csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.snapshot = s.Cut(t, "snapshot", volume.GetVolumeId())
	if err := driver.DeleteVolume(t.Context(), &csipb.DeleteVolumeRequest{VolumeId: volume.GetVolumeId()}); err != nil {
		t.Fatal(err)
	}
}

// keepSnapshot makes the run's snapshot, which is wanted from now on. It has the
// run's name.
func (r *run) keepSnapshot(ctx context.Context) error {
	if r.api == nil {
		return nil
	}
	r.kept[r.name] = true
	_, _, err := r.Describe(ctx, r.api, r.name, r.snapshot)
	return err
}

// dropSnapshots deletes the run's snapshot, which nobody wants from now on.
func (r *run) dropSnapshots(ctx context.Context) {
	if r.api == nil {
		return
	}
	r.mu.Lock()
	delete(r.kept, r.name)
	r.mu.Unlock()
	snapshot := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: r.name}}
	if err := r.api.Delete(ctx, snapshot); client.IgnoreNotFound(err) != nil {
		r.complain(err)
	}
	r.trace.note("snapshot %s was deleted", r.name)
}

// dropContent does what the snapshot controller would do in the end.
func (r *run) dropContent(ctx context.Context) {
	if r.api == nil {
		return
	}
	content := &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: r.Namespace + "-" + r.name}}
	if err := r.api.Delete(ctx, content); client.IgnoreNotFound(err) != nil {
		r.complain(err)
	}
}

// snapshots are those of the stage.
func (s *stage) snapshots(ctx context.Context) ([]snapshotv1.VolumeSnapshot, error) {
	if s.api == nil {
		return nil, nil
	}
	list := &snapshotv1.VolumeSnapshotList{}
	err := s.api.List(ctx, list, client.InNamespace(s.Namespace))
	return list.Items, err
}

// removeSnapshot deletes a snapshot that is held.
func (s *stage) removeSnapshot(ctx context.Context, snapshot *snapshotv1.VolumeSnapshot) error {
	free := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
	return errors.Join(client.IgnoreNotFound(s.api.Patch(ctx, snapshot, free)), client.IgnoreNotFound(s.api.Delete(ctx, snapshot)))
}

// compareSnapshots tells which snapshots are not as wanted: there, and free to
// be deleted.
func (s *state) compareSnapshots(want map[string]bool) (wrong []string) {
	left := map[string]bool{}
	for i := range s.snapshots {
		name := s.snapshots[i].Name
		left[name] = true
		switch {
		case !want[name]:
			wrong = append(wrong, fmt.Sprintf("snapshot %s is there and nobody wants it", name))
		case protected(&s.snapshots[i]):
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

func protected(snapshot *snapshotv1.VolumeSnapshot) bool {
	return slices.Contains(snapshot.Finalizers, kube.SnapshotSourceFinalizer)
}

// inspect looks at what a volume is being filled from, when the call comes and
// when the driver has done its work: it must be kept all that time.
func (s *stage) inspect(ctx context.Context, create *csipb.CreateVolumeRequest) {
	var held bool
	var err error
	switch content := create.GetVolumeContentSource(); {
	case content.GetSnapshot() != nil:
		held, err = s.snapshotHeld(ctx)
	case content.GetVolume() != nil:
		held, err = s.claimHeld(ctx)
	default:
		return
	}
	if !held && err == nil {
		err = fmt.Errorf("volume %s is being filled from what nobody protects", create.GetName())
	}
	if ctx.Err() == nil && err != nil {
		s.complain(err)
	}
}

func (s *stage) snapshotHeld(ctx context.Context) (bool, error) {
	snapshots, err := s.snapshots(ctx)
	return len(snapshots) == 1 && protected(&snapshots[0]), err
}

func (s *stage) claimHeld(ctx context.Context) (bool, error) {
	claims, err := s.Client.CoreV1().PersistentVolumeClaims(s.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, err
	}
	for i := range claims.Items {
		if slices.Contains(claims.Items[i].Finalizers, kube.CloneSourceFinalizer) {
			return true, nil
		}
	}
	return false, nil
}

// lull is how long nothing happens before a call that is held up goes on.
const lull = 100 * time.Millisecond

// linger holds up a call until nothing else happens, or until nobody waits for
// its answer any more.
func (s *stage) linger(ctx context.Context) error {
	for !s.trace.calm(s.scenario.lag + lull) {
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-time.After(pulse):
		}
	}
	return nil
}
