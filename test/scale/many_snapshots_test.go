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
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

const (
	// cut is how many snapshots are made and deleted among the others.
	cut = 30
	// manySnapshotsBudget is what either process may take with 10,000 snapshots,
	// and never more: well below the 256 MiB that users are told to allow the
	// controller.
	manySnapshotsBudget = 136 << 20
)

// A snapshotSight is what was seen of both halves in a cluster of some size.
type snapshotSight struct {
	there         int
	ready         time.Duration
	memory        [2]footprint
	peaks         [2]int64
	made, deleted *cost
}

// What a snapshot costs does not depend on how many others there are, and 10,000
// of them fit into what users allow.
func TestManySnapshots(t *testing.T) {
	t.Parallel()
	sizes := []int{300, 1500}
	if *full {
		sizes = []int{1000, 10000}
	}
	w, api := newSnapshotsOnly(t)
	var sights []*snapshotSight
	there := 0
	for _, size := range sizes {
		fillSnapshots(t, w, api, there, size)
		there = size
		t.Run(fmt.Sprint(size), func(t *testing.T) { sights = append(sights, lookAtSnapshots(t, w, api, size)) })
	}
	if t.Failed() {
		return
	}
	few, many := sights[0], sights[len(sights)-1]
	few.made.same(t, "made", many.made)
	few.deleted.same(t, "deleted", many.deleted)
	publish(t, "many snapshots", manySnapshotsTable(sights))
}

// newSnapshotsOnly is a world whose cluster does nothing by itself.
func newSnapshotsOnly(t *testing.T) (*world.World, client.Client) {
	t.Helper()
	c := cluster.NewAPIOnly(t)
	driver := csitest.New(csitest.Options{})
	w := &world.World{Cluster: c, Driver: driver, Name: "csitest.holdfast.io", Socket: driver.Serve(t)}
	api := w.Snapshots(t)
	w.SnapshotClass(t, api, nil)
	return w, api
}

// fillSnapshots makes snapshots of claims, those of [from, to), as they are in a
// cluster that has been in use for a while.
func fillSnapshots(t *testing.T, w *world.World, api client.Client, from, to int) {
	t.Helper()
	each(to-from, func(n int) {
		if err := fillSnapshot(t.Context(), w, api, from+n); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
}

func fillSnapshot(ctx context.Context, w *world.World, api client.Client, n int) error {
	name := fmt.Sprintf("there-%05d", n)
	claim, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Create(ctx, boundClaim(name, name), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	volume := foreignVolume(name, w.Namespace, name, claim.UID)
	if n%ourShare == 0 {
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
	return fillContent(ctx, w, api, s, volume.Spec.CSI)
}

// fillContent makes the content of a snapshot, and both ready.
func fillContent(ctx context.Context, w *world.World, api client.Client, s *snapshotv1.VolumeSnapshot, of *corev1.CSIPersistentVolumeSource) error {
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

// lookAtSnapshots measures both processes from their start to the end of the last
// snapshot.
func lookAtSnapshots(t *testing.T, w *world.World, api client.Client, size int) *snapshotSight {
	t.Helper()
	b := &bothHalves{World: w, api: api}
	b.controller = startRole(t, w, w.WholeSnapshotController)
	b.snapshotter = startRole(t, w, w.Snapshotter, csi.CreateSnapshot, csi.DeleteSnapshot)
	s := &snapshotSight{there: size, ready: max(b.controller.ready(t), b.snapshotter.ready(t))}
	world.Eventually(t, func(context.Context) error { // All are looked at once, which asks for nothing.
		if n, _ := b.controller.findMetric(t, metricLooks); n < float64(size) {
			return fmt.Errorf("%v snapshots of %d were looked at", n, size)
		}
		return nil
	})
	b.settled(t)
	if n := b.controller.metric(t, `holdfast_snapshots{state="ready"}`); n != float64(size) {
		t.Errorf("%v snapshots of %d are counted as ready", n, size)
	}
	s.memory = [2]footprint{memory(t, b.controller.PID()), memory(t, b.snapshotter.PID())}

	name := func(n int) string { return fmt.Sprintf("cut-%d-%d", size, n) }
	each(cut, func(n int) { b.boundByHand(t, name(n)) })
	b.settled(t)
	s.made = b.phase(t, cut, func() {
		each(cut, func(n int) { w.Snapshot(t, api, name(n), name(n), nil) })
		b.allReady(t, size+cut)
	})
	s.deleted = b.phase(t, cut, func() {
		each(cut, func(n int) { w.DropSnapshot(t, api, name(n)) })
		each(cut, func(n int) { w.SnapshotGone(t, api, name(n)) })
	})
	s.peaks = [2]int64{peak(t, b.controller.PID()), peak(t, b.snapshotter.PID())}

	b.within(t, s.made, cutBudget)
	s.deleted.within(t, uncutBudget)
	for n, peak := range s.peaks {
		if peak > manySnapshotsBudget {
			t.Errorf("up to %d MiB were resident in process %d among %d snapshots, more than %d", peak>>20, n+1, size, manySnapshotsBudget>>20)
		}
	}
	b.controller.Kill()
	b.snapshotter.Kill()
	return s
}

// boundByHand makes a claim and its volume, and binds them as the controller
// manager does.
func (b *bothHalves) boundByHand(t *testing.T, name string) {
	t.Helper()
	claim := b.Claim(t, name, func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = b.Namespace + "-" + name })
	b.Volume(t, name, func(v *corev1.PersistentVolume) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: b.Namespace, Name: name, UID: claim.UID}
	})
	claim.Status.Phase = corev1.ClaimBound
	if _, err := b.Client.CoreV1().PersistentVolumeClaims(b.Namespace).UpdateStatus(t.Context(), claim, metav1.UpdateOptions{}); err != nil {
		t.Error(err)
	}
}

func manySnapshotsTable(sights []*snapshotSight) string {
	b := newColumns(sights)
	b.row("snapshots with contents, claims and volumes", func(s *snapshotSight) string {
		return fmt.Sprintf("%d, of which %d ours", s.there, s.there/ourShare)
	})
	b.line()
	b.row("start to ready", func(s *snapshotSight) string { return fmt.Sprintf("%.2f s", s.ready.Seconds()) })
	for n, role := range []string{"snapshot-controller", "csi-snapshotter"} {
		b.row("memory of "+role+" then", func(s *snapshotSight) string { return s.memory[n].String() })
		b.row("memory at its peak", func(s *snapshotSight) string { return fmt.Sprintf("%d MiB RSS", s.peaks[n]>>20) })
	}
	b.row("a snapshot made", func(s *snapshotSight) string { return s.made.String() })
	b.row("a snapshot deleted", func(s *snapshotSight) string { return s.deleted.String() })
	return b.String()
}
