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
	"github.com/holdfast-io/holdfast/test/world"
)

const (
	// Budgets of requests of both our processes for one snapshot, events
	// included: the content, the driver's record and answer, what keeps snapshot
	// and claim, and what users are told.
	cutBudget, uncutBudget = 9, 6
	// sharing is how many snapshots of one claim are asked for at once.
	sharing = 30
	// snapshotMemoryBudget is what either process may have resident with 300
	// snapshots: half of what users are told to set aside for the controller.
	snapshotMemoryBudget = 64 << 20
)

// Making a snapshot costs at most nine requests of ours, deleting it six, and the
// driver is asked once for each.
func TestCostOfASnapshot(t *testing.T) {
	b := newBothHalves(t)
	each(claims, func(n int) { b.boundClaim(t, claimName(n)) })
	world.Eventually(t, func(ctx context.Context) error { return bound(ctx, b.World, claims) })
	b.settled(t)

	made := b.phase(t, claims, func() {
		each(claims, func(n int) { b.Snapshot(t, b.api, snapshotName(n), claimName(n), nil) })
		b.allReady(t, claims)
	})
	took := [2]footprint{memory(t, b.controller.PID()), memory(t, b.snapshotter.PID())}
	dropped := b.phase(t, claims, func() {
		each(claims, func(n int) { b.DropSnapshot(t, b.api, snapshotName(n)) })
		b.NoSnapshotsLeft(t, b.api)
	})

	b.within(t, made, cutBudget)
	dropped.within(t, uncutBudget)
	b.calledOnce(t, claims)
	b.measured(t, claims)
	for _, f := range took {
		if f.resident > snapshotMemoryBudget {
			t.Errorf("%s with %d snapshots, more than %d MiB", f, claims, snapshotMemoryBudget>>20)
		}
	}
	publish(t, "snapshots", snapshotTable(made, dropped, took))
}

// Snapshots of one claim share what is written to it, as far as they are made at
// once; instead each looks whether the claim is still kept.
func TestCostOfSnapshotsOfOneClaim(t *testing.T) {
	b := newBothHalves(t)
	b.boundClaim(t, "data")
	b.Bound(t, "data")
	b.settled(t)
	made := b.phase(t, sharing, func() {
		each(sharing, func(n int) { b.Snapshot(t, b.api, snapshotName(n), "data", nil) })
		b.allReady(t, sharing)
	})
	dropped := b.phase(t, sharing, func() {
		each(sharing, func(n int) { b.DropSnapshot(t, b.api, snapshotName(n)) })
		b.NoSnapshotsLeft(t, b.api)
	})
	b.within(t, made, cutBudget)
	dropped.within(t, uncutBudget)
	b.calledOnce(t, sharing)
	t.Logf("made: %s", made.requests.Per(sharing))
}

// bothHalves are the two processes that make snapshots, with their default flags.
type bothHalves struct {
	*world.World
	api                     client.Client
	controller, snapshotter *subject
}

func newBothHalves(t *testing.T) *bothHalves {
	t.Helper()
	w := world.New(t, csitest.Options{})
	b := &bothHalves{World: w, api: w.Snapshots(t)}
	w.SnapshotClass(t, b.api, nil)
	b.controller = startRole(t, w, w.SnapshotController)
	b.snapshotter = startRole(t, w, w.Snapshotter, csi.CreateSnapshot, csi.DeleteSnapshot)
	b.controller.ready(t)
	b.snapshotter.ready(t)
	return b
}

// boundClaim makes a claim and a volume for each other.
func (b *bothHalves) boundClaim(t *testing.T, name string) {
	t.Helper()
	volume := b.Volume(t, name, func(v *corev1.PersistentVolume) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: b.Namespace, Name: name}
	})
	b.Claim(t, name, func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = volume.Name })
}

func snapshotName(n int) string { return fmt.Sprintf("snapshot-%d", n) }

// allReady waits until n snapshots can be restored from.
func (b *bothHalves) allReady(t *testing.T, n int) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		list, ready := &snapshotv1.VolumeSnapshotList{}, 0
		if err := b.api.List(ctx, list, client.InNamespace(b.Namespace)); err != nil {
			return err
		}
		for i := range list.Items {
			if s := list.Items[i].Status; s != nil && ptr.Deref(s.ReadyToUse, false) {
				ready++
			}
		}
		if ready < n {
			return fmt.Errorf("%d snapshots of %d are ready", ready, n)
		}
		return nil
	})
}

// within asserts a budget of requests for each snapshot that is made. Of one that
// is not ready within a second users are told that it is on its way, which is one
// more write and one more event; on a busy machine there are some.
func (b *bothHalves) within(t *testing.T, c *cost, budget int) {
	t.Helper()
	told, err := b.Client.CoreV1().Events(b.Namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=CreatingSnapshot"})
	if err != nil {
		t.Fatal(err)
	}
	if n := c.requests.Total() - 2*len(told.Items); n > budget*c.n {
		t.Errorf("%d requests for %d snapshots, and %d for telling of %d that they are on their way: %s",
			n, c.n, 2*len(told.Items), len(told.Items), c.requests.Per(c.n))
	}
}

func (b *bothHalves) calledOnce(t *testing.T, n int) {
	t.Helper()
	for _, method := range []csi.Method{csi.CreateSnapshot, csi.DeleteSnapshot} {
		if got := b.Driver.Calls(method); got != n {
			t.Errorf("%s was called %d times for %d snapshots", method, got, n)
		}
	}
}

// measured asserts that each operation was measured once, and that none is left.
func (b *bothHalves) measured(t *testing.T, n int) {
	t.Helper()
	for _, operation := range []string{"CreateSnapshot", "CreateSnapshotAndReady", "DeleteSnapshot"} {
		name := fmt.Sprintf("snapshot_controller_operation_total_seconds_count{driver_name=%q,operation_name=%q,operation_status=%q,snapshot_type=%q}",
			b.Name, operation, "success", "dynamic")
		if got := b.controller.metric(t, name); got != float64(n) {
			t.Errorf("%s was measured %v times for %d snapshots", operation, got, n)
		}
	}
	if got := b.controller.metric(t, "snapshot_controller_operations_in_flight"); got != 0 {
		t.Errorf("%v operations are under way", got)
	}
}

// phase is what both have taken; the parts are told.
func (b *bothHalves) phase(t *testing.T, n int, do func()) *cost {
	t.Helper()
	var of *cost
	var took time.Duration
	sum := b.controller.phase(t, n, func() {
		of = b.snapshotter.phase(t, n, func() {
			began := time.Now()
			do()
			took = time.Since(began)
		})
	})
	t.Logf("snapshot-controller: %.2f ms, %s", sum.cpuEach(), sum.requests.Per(n))
	t.Logf("csi-snapshotter: %.2f ms, %s", of.cpuEach(), of.requests.Per(n))
	sum.took, sum.calls = took, of.calls
	sum.cpu += of.cpu
	sum.allocated += of.allocated
	sum.requests.Add(of.requests)
	return sum
}

// settled waits until neither asks for anything.
func (b *bothHalves) settled(t *testing.T) {
	t.Helper()
	b.controller.settled(t)
	b.snapshotter.settled(t)
}

func snapshotTable(made, dropped *cost, took [2]footprint) string {
	return sideBySide("300 snapshots",
		line{"ready a second", figure("%.1f", made.rate()), "36.1", "0.7"},
		line{"requests for one", figure("%.2f", made.requestsEach()), "17.6", ""},
		line{"driver calls for one", figure("%.2f", made.callsEach()), "", ""},
		line{"ms of processor for one", figure("%.2f (two processes)", made.cpuEach()), "10.03 (five processes)", ""},
		line{"deleted a second", figure("%.1f", dropped.rate()), "56.7", "0.9"},
		line{"requests for one", figure("%.2f", dropped.requestsEach()), "8.4", ""},
		line{"driver calls for one", figure("%.2f", dropped.callsEach()), "", ""},
		line{"ms of processor for one", figure("%.2f (two processes)", dropped.cpuEach()), "6.20 (five processes)", ""},
		line{"memory of snapshot-controller with 300 snapshots", took[0].String(), "357 MiB RSS (five processes)", ""},
		line{"memory of csi-snapshotter with them", took[1].String(), "", ""}) +
		fmt.Sprintf("\nRequests for a snapshot that is made: %s; that is deleted: %s.\n", made.requests.Per(claims), dropped.requests.Per(claims))
}
