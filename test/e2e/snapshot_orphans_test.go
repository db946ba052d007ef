package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// A snapshot at the driver without a content is counted and reported, and not deleted.
func TestOrphanedSnapshotIsReported(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{Record: true})
	api := w.SnapshotClient(t)
	class := w.CreateSnapshotClass(t, api, nil)
	volume := w.CreatePV(t, "data", nil).Spec.CSI.VolumeHandle
	known, unknown := w.CreateSnapshotAtDriver(t, "known", volume), w.CreateSnapshotAtDriver(t, "unknown", volume)
	describe := func(name, handle string) {
		_, content, err := w.CreateSnapshotObjects(t.Context(), api, name, handle)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := api.Delete(context.Background(), content); err != nil {
				t.Error(err)
			}
		})
	}
	describe("known", known)
	address := world.FreeAddress(t)
	w.StartSnapshotter(t, "--orphan-check-interval=200ms", "--orphan-age=0s", "--http-endpoint="+address)
	count := func(n int) string {
		return fmt.Sprintf("holdfast_snapshot_orphans{driver_name=%q,named_by=\"unknown\"} %d", w.Name, n)
	}
	world.Eventually(t, func(ctx context.Context) error { return checkServed(ctx, "http://"+address+"/metrics", count(1)) })
	w.WaitEvent(t, "VolumeSnapshotClass/"+class.Name, "", "OrphanedSnapshots", unknown)
	if n := w.Driver.Calls(csi.DeleteSnapshot); n > 0 {
		t.Errorf("%d snapshots were deleted", n)
	}
	describe("found", unknown)
	world.Eventually(t, func(ctx context.Context) error { return checkServed(ctx, "http://"+address+"/metrics", count(0)) })
}
