package scale

import (
	"context"
	"fmt"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/test/world"
)

const (
	// snapshotsMeasured is the number of snapshots that are taken and deleted among the
	// others.
	snapshotsMeasured = 30
)

// manySnapshotsBudgets are the largest memory of snapshot-controller and csi-snapshotter with
// 10,000 snapshots. The documented limit of the first is 256 MiB.
var manySnapshotsBudgets = [2]int64{128 << 20, 64 << 20}

// A snapshotResult is the result of measuring both processes in a cluster of some
// size.
type snapshotResult struct {
	there         int
	ready         time.Duration
	memory        [2]memoryUse
	peaks         [2]int64
	made, deleted *cost
}

// The cost of a snapshot does not depend on the number of others, and 10,000 of them
// fit into the documented memory limit.
func TestManySnapshots(t *testing.T) {
	t.Parallel()
	sizes := []int{300, 1500}
	if *full {
		sizes = []int{1000, 10000}
	}
	w, api := newAPIOnlySnapshotWorld(t)
	var results []*snapshotResult
	there := 0
	for _, size := range sizes {
		createSnapshots(t, w, api, there, size)
		there = size
		t.Run(fmt.Sprint(size), func(t *testing.T) { results = append(results, measureSnapshots(t, w, api, size)) })
	}
	if t.Failed() {
		return
	}
	few, many := results[0], results[len(results)-1]
	few.made.checkSame(t, "made", many.made)
	few.deleted.checkSame(t, "deleted", many.deleted)
	publishTable(t, "many snapshots", manySnapshotsTable(results))
}

// newAPIOnlySnapshotWorld is a world without controllers, with a snapshot class.
func newAPIOnlySnapshotWorld(t *testing.T) (*world.World, client.Client) {
	t.Helper()
	w := world.NewAPIOnly(t, csitest.Options{})
	api := w.SnapshotClient(t)
	w.CreateSnapshotClass(t, api, nil)
	return w, api
}

// createSnapshots creates the snapshots [from, to) with their claims, as in a cluster
// that is in use.
func createSnapshots(t *testing.T, w *world.World, api client.Client, from, to int) {
	t.Helper()
	inParallel(to-from, func(n int) {
		if err := createSnapshot(t.Context(), w, api, from+n); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
}

func createSnapshot(ctx context.Context, w *world.World, api client.Client, n int) error {
	name := fmt.Sprintf("there-%05d", n)
	claim, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Create(ctx, boundClaim(name, name), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	volume := foreignVolume(name, w.Namespace, name, claim.UID)
	if n%everyNthIsOurs == 0 {
		volume.Spec.CSI.Driver = w.Name
	}
	if _, err := w.Client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{}); err != nil {
		return err
	}
	s := &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.Namespace, Name: name, Labels: claim.Labels,
			Finalizers: []string{snapshot.AsSourceFinalizer, snapshot.BoundFinalizer},
		},
		Spec: snapshotv1.VolumeSnapshotSpec{
			VolumeSnapshotClassName: ptr.To(w.Namespace), Source: snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: &name},
		},
	}
	if err := api.Create(ctx, s); err != nil {
		return err
	}
	return createContent(ctx, w, api, s, volume.Spec.CSI)
}

// createContent creates the content of a snapshot, and makes both ready.
func createContent(ctx context.Context, w *world.World, api client.Client, s *snapshotv1.VolumeSnapshot, of *corev1.CSIPersistentVolumeSource) error {
	c := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: snapshot.ContentName(s.UID), Finalizers: []string{snapshot.Single.Finalizer}},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			Driver: of.Driver, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete, VolumeSnapshotClassName: ptr.To(w.Namespace),
			Source: snapshotv1.VolumeSnapshotContentSource{VolumeHandle: &of.VolumeHandle},
			VolumeSnapshotRef: corev1.ObjectReference{
				APIVersion: snapshotv1.SchemeGroupVersion.String(), Kind: "VolumeSnapshot", Namespace: s.Namespace, Name: s.Name, UID: s.UID,
			},
			SourceVolumeMode: ptr.To(corev1.PersistentVolumeFilesystem),
		},
	}
	if err := api.Create(ctx, c); err != nil {
		return err
	}
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	c.Status = &snapshotv1.VolumeSnapshotContentStatus{
		SnapshotHandle: ptr.To("snapshot-of-" + s.Name), ReadyToUse: ptr.To(true), CreationTime: ptr.To(now.UnixNano()),
	}
	if err := api.Status().Update(ctx, c); err != nil {
		return err
	}
	s.Status = &snapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: &c.Name, ReadyToUse: ptr.To(true), CreationTime: &now}
	return api.Status().Update(ctx, s)
}

// measureSnapshots measures both processes from their start to the deletion of the
// last snapshot.
func measureSnapshots(t *testing.T, w *world.World, api client.Client, size int) *snapshotResult {
	t.Helper()
	b := &snapshotProcesses{World: w, api: api}
	b.controller = startRole(t, w, w.StartSnapshotControllerForAll)
	b.snapshotter = startRole(t, w, w.StartSnapshotter, csi.CreateSnapshot, csi.DeleteSnapshot)
	s := &snapshotResult{there: size, ready: max(b.controller.waitReady(t), b.snapshotter.waitReady(t))}
	world.Eventually(t, func(context.Context) error { // All are reconciled once, without a request.
		if n, _ := b.controller.findMetric(t, metricReconciles); n < float64(size) {
			return fmt.Errorf("%v of %d snapshots were reconciled", n, size)
		}
		return nil
	})
	b.waitIdle(t)
	if n := b.controller.metric(t, `holdfast_snapshots{state="ready"}`); n != float64(size) {
		t.Errorf("%v of %d snapshots are counted as ready", n, size)
	}
	s.memory = [2]memoryUse{memoryOf(t, b.controller.PID()), memoryOf(t, b.snapshotter.PID())}

	name := func(n int) string { return fmt.Sprintf("new-%d-%d", size, n) }
	inParallel(snapshotsMeasured, func(n int) { b.bindByHand(t, name(n)) })
	b.waitIdle(t)
	s.made = b.measure(t, snapshotsMeasured, func() {
		inParallel(snapshotsMeasured, func(n int) { w.CreateSnapshot(t, api, name(n), name(n), nil) })
		b.waitAllReady(t, size+snapshotsMeasured)
	})
	s.deleted = b.measure(t, snapshotsMeasured, func() {
		inParallel(snapshotsMeasured, func(n int) { w.DeleteSnapshot(t, api, name(n)) })
		inParallel(snapshotsMeasured, func(n int) { w.WaitSnapshotGone(t, api, name(n)) })
	})
	s.peaks = [2]int64{peakMemory(t, b.controller.PID()), peakMemory(t, b.snapshotter.PID())}

	b.checkBudget(t, s.made, snapshotBudget)
	s.deleted.checkBudget(t, snapshotDeleteBudget)
	for n, peak := range s.peaks {
		if peak > manySnapshotsBudgets[n] {
			t.Errorf("up to %d MiB were resident in process %d among %d snapshots, more than %d", peak>>20, n+1, size, manySnapshotsBudgets[n]>>20)
		}
	}
	b.controller.Kill()
	b.snapshotter.Kill()
	return s
}

// bindByHand creates a claim and its volume, and binds them as the controller manager
// does.
func (b *snapshotProcesses) bindByHand(t *testing.T, name string) {
	t.Helper()
	claim := b.CreateClaim(t, name, func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = b.Namespace + "-" + name })
	b.CreatePV(t, name, func(v *corev1.PersistentVolume) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: b.Namespace, Name: name, UID: claim.UID}
	})
	claim.Status.Phase = corev1.ClaimBound
	if _, err := b.Client.CoreV1().PersistentVolumeClaims(b.Namespace).UpdateStatus(t.Context(), claim, metav1.UpdateOptions{}); err != nil {
		t.Error(err)
	}
}

func manySnapshotsTable(results []*snapshotResult) string {
	b := newColumns(results)
	b.row("snapshots with contents, claims and volumes", func(s *snapshotResult) string {
		return fmt.Sprintf("%d, of which %d ours", s.there, s.there/everyNthIsOurs)
	})
	b.line()
	b.row("start to ready", func(s *snapshotResult) string { return fmt.Sprintf("%.2f s", s.ready.Seconds()) })
	for n, role := range []string{"snapshot-controller", "csi-snapshotter"} {
		b.row("memory of "+role+" when idle", func(s *snapshotResult) string { return s.memory[n].String() })
		b.row("peak memory", func(s *snapshotResult) string { return fmt.Sprintf("%d MiB RSS", s.peaks[n]>>20) })
	}
	b.row("one snapshot taken", func(s *snapshotResult) string { return s.made.String() })
	b.row("one snapshot deleted", func(s *snapshotResult) string { return s.deleted.String() })
	return b.String()
}
