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
	// Budgets of requests of both processes for one snapshot, including events: the
	// content, the record and the response of the driver call, the finalizers of
	// snapshot and claim, and the status.
	snapshotBudget, snapshotDeleteBudget = 9, 6
	// snapshotsOfOneClaim is the number of snapshots of one claim that are taken at the
	// same time.
	snapshotsOfOneClaim = 30
	// snapshotMemoryBudget is the resident memory of either process with 300 snapshots:
	// half of the documented memory request of the controller.
	snapshotMemoryBudget = 64 << 20
)

// Taking a snapshot costs at most nine requests and deleting it six, with one driver
// call each.
func TestCostOfASnapshot(t *testing.T) {
	b := newSnapshotProcesses(t)
	inParallel(claims, func(n int) { b.createBoundClaim(t, claimName(n)) })
	world.Eventually(t, func(ctx context.Context) error { return checkBound(ctx, b.World, claims) })
	b.waitIdle(t)

	made := b.measure(t, claims, func() {
		inParallel(claims, func(n int) { b.CreateSnapshot(t, b.api, snapshotName(n), claimName(n), nil) })
		b.waitAllReady(t, claims)
	})
	took := [2]memoryUse{memoryOf(t, b.controller.PID()), memoryOf(t, b.snapshotter.PID())}
	dropped := b.measure(t, claims, func() {
		inParallel(claims, func(n int) { b.DeleteSnapshot(t, b.api, snapshotName(n)) })
		b.WaitNoSnapshotsLeft(t, b.api)
	})

	b.checkBudget(t, made, snapshotBudget)
	dropped.checkBudget(t, snapshotDeleteBudget)
	b.checkCalls(t, claims)
	b.checkMetrics(t, claims)
	for _, f := range took {
		if f.resident > snapshotMemoryBudget {
			t.Errorf("%s with %d snapshots, more than %d MiB", f, claims, snapshotMemoryBudget>>20)
		}
	}
	publishTable(t, "snapshots", snapshotTable(made, dropped, took))
}

// Concurrent snapshots of one claim share the writes to the claim; instead each checks
// whether the claim is still protected.
func TestCostOfSnapshotsOfOneClaim(t *testing.T) {
	b := newSnapshotProcesses(t)
	b.createBoundClaim(t, "data")
	b.WaitBound(t, "data")
	b.waitIdle(t)
	made := b.measure(t, snapshotsOfOneClaim, func() {
		inParallel(snapshotsOfOneClaim, func(n int) { b.CreateSnapshot(t, b.api, snapshotName(n), "data", nil) })
		b.waitAllReady(t, snapshotsOfOneClaim)
	})
	dropped := b.measure(t, snapshotsOfOneClaim, func() {
		inParallel(snapshotsOfOneClaim, func(n int) { b.DeleteSnapshot(t, b.api, snapshotName(n)) })
		b.WaitNoSnapshotsLeft(t, b.api)
	})
	b.checkBudget(t, made, snapshotBudget)
	dropped.checkBudget(t, snapshotDeleteBudget)
	b.checkCalls(t, snapshotsOfOneClaim)
	t.Logf("taken: %s", made.requests.PerObject(snapshotsOfOneClaim))
}

// snapshotProcesses are snapshot-controller and csi-snapshotter, with their default
// flags.
type snapshotProcesses struct {
	*world.World
	api                     client.Client
	controller, snapshotter *measuredProcess
}

func newSnapshotProcesses(t *testing.T) *snapshotProcesses {
	t.Helper()
	w := world.New(t, csitest.Options{})
	b := &snapshotProcesses{World: w, api: w.SnapshotClient(t)}
	w.CreateSnapshotClass(t, b.api, nil)
	b.controller = startRole(t, w, w.StartSnapshotController)
	b.snapshotter = startRole(t, w, w.StartSnapshotter, csi.CreateSnapshot, csi.DeleteSnapshot)
	b.controller.waitReady(t)
	b.snapshotter.waitReady(t)
	return b
}

// createBoundClaim creates a claim and a volume for each other.
func (b *snapshotProcesses) createBoundClaim(t *testing.T, name string) {
	t.Helper()
	volume := b.CreatePV(t, name, func(v *corev1.PersistentVolume) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: b.Namespace, Name: name}
	})
	b.CreateClaim(t, name, func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = volume.Name })
}

func snapshotName(n int) string { return fmt.Sprintf("snapshot-%d", n) }

// waitAllReady waits until n snapshots are ready to use.
func (b *snapshotProcesses) waitAllReady(t *testing.T, n int) {
	t.Helper()
	waitSnapshotsReady(t, b.World, b.api, n)
}

// waitSnapshotsReady waits until n snapshots of the world are ready to use.
func waitSnapshotsReady(t *testing.T, w *world.World, api client.Client, n int) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		list, ready := &snapshotv1.VolumeSnapshotList{}, 0
		if err := api.List(ctx, list, client.InNamespace(w.Namespace)); err != nil {
			return err
		}
		for i := range list.Items {
			if s := list.Items[i].Status; s != nil && ptr.Deref(s.ReadyToUse, false) {
				ready++
			}
		}
		if ready < n {
			return fmt.Errorf("%d of %d snapshots are ready", ready, n)
		}
		return nil
	})
}

// checkBudget checks a budget of requests for each snapshot. A snapshot that is not
// ready within a second gets an event and a status that it is being created, which
// costs two more requests; on a busy machine some do. Events are sent in the background.
func (b *snapshotProcesses) checkBudget(t *testing.T, c *cost, budget int) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		events, err := b.Client.CoreV1().Events(b.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=CreatingSnapshot"})
		if err != nil {
			return err
		}
		if n := c.requests.Total() - 2*len(events.Items); n > budget*c.n {
			return fmt.Errorf("%d requests for %d snapshots, and %d for reporting %d of them as being created: %s",
				n, c.n, 2*len(events.Items), len(events.Items), c.requests.PerObject(c.n))
		}
		return nil
	})
}

func (b *snapshotProcesses) checkCalls(t *testing.T, n int) {
	t.Helper()
	for _, method := range []csi.Method{csi.CreateSnapshot, csi.DeleteSnapshot} {
		if got := b.Driver.Calls(method); got != n {
			t.Errorf("%s was called %d times for %d snapshots", method, got, n)
		}
	}
}

// checkMetrics checks that each operation was measured once, and that none is in
// progress.
func (b *snapshotProcesses) checkMetrics(t *testing.T, n int) {
	t.Helper()
	for _, operation := range []string{"CreateSnapshot", "CreateSnapshotAndReady", "DeleteSnapshot"} {
		name := fmt.Sprintf("snapshot_controller_operation_total_seconds_count{driver_name=%q,operation_name=%q,operation_status=%q,snapshot_type=%q}",
			b.Name, operation, "success", "dynamic")
		if got := b.controller.metric(t, name); got != float64(n) {
			t.Errorf("%s was measured %v times for %d snapshots", operation, got, n)
		}
	}
	if got := b.controller.metric(t, "snapshot_controller_operations_in_flight"); got != 0 {
		t.Errorf("%v operations are in progress", got)
	}
}

// measure returns the cost of both processes, and logs each.
func (b *snapshotProcesses) measure(t *testing.T, n int, do func()) *cost {
	t.Helper()
	var of *cost
	var took time.Duration
	sum := b.controller.measure(t, n, func() {
		of = b.snapshotter.measure(t, n, func() {
			began := time.Now()
			do()
			took = time.Since(began)
		})
	})
	t.Logf("snapshot-controller: %.2f ms, %s", sum.cpuEach(), sum.requests.PerObject(n))
	t.Logf("csi-snapshotter: %.2f ms, %s", of.cpuEach(), of.requests.PerObject(n))
	sum.duration, sum.calls = took, of.calls
	sum.cpu += of.cpu
	sum.allocated += of.allocated
	sum.requests.Add(of.requests)
	return sum
}

// waitIdle waits until both processes are idle.
func (b *snapshotProcesses) waitIdle(t *testing.T) {
	t.Helper()
	b.controller.waitIdle(t)
	b.snapshotter.waitIdle(t)
}

func snapshotTable(made, dropped *cost, took [2]memoryUse) string {
	return comparisonTable("300 snapshots",
		tableRow{"ready a second", figure("%.1f", made.perSecond()), "36.1", "0.7"},
		tableRow{"requests for one", figure("%.2f", made.requestsEach()), "17.6", ""},
		tableRow{"driver calls for one", figure("%.2f", made.callsEach()), "", ""},
		tableRow{"ms of CPU for one", figure("%.2f (two processes)", made.cpuEach()), "10.03 (five processes)", ""},
		tableRow{"deleted a second", figure("%.1f", dropped.perSecond()), "56.7", "0.9"},
		tableRow{"requests for one", figure("%.2f", dropped.requestsEach()), "8.4", ""},
		tableRow{"driver calls for one", figure("%.2f", dropped.callsEach()), "", ""},
		tableRow{"ms of CPU for one", figure("%.2f (two processes)", dropped.cpuEach()), "6.20 (five processes)", ""},
		tableRow{"memory of snapshot-controller with 300 snapshots", took[0].String(), "357 MiB RSS (five processes)", ""},
		tableRow{"memory of csi-snapshotter with them", took[1].String(), "", ""}) +
		fmt.Sprintf("\nRequests for taking a snapshot: %s; for deleting it: %s.\n", made.requests.PerObject(claims), dropped.requests.PerObject(claims))
}
