package scale

import (
	"context"
	"fmt"
	"testing"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/test/world"
)

// attacherResult is the result of measuring the attacher in a cluster of some size.
type attacherResult struct {
	objects int
	startup
	peak               int64 // bytes resident
	attached, detached *cost
}

// measureAttacher measures one process from its start to its last detachment. It does
// not reconcile with ListVolumes: the driver does not know the existing volumes.
func measureAttacher(t *testing.T, w *world.World, objects int) *attacherResult {
	t.Helper()
	node := w.CreateCSINode(t, fmt.Sprintf("node-%d", objects), "node-1")
	volumes := make([]string, measured)
	inParallel(measured, func(n int) { volumes[n] = w.CreatePV(t, fmt.Sprintf("attach-%d-%d", objects, n), nil).Name })
	p := startRole(t, w, func(t testing.TB, args ...string) *world.Process {
		return w.StartAttacher(t, append(args, "--reconcile-sync=0")...)
	}, csi.ControllerPublishVolume, csi.ControllerUnpublishVolume)
	s := &attacherResult{objects: objects, startup: p.measureStart(t)}
	s.attached = p.measure(t, measured, func() {
		inParallel(measured, func(n int) { w.CreateAttachment(t, volumes[n], node) })
		inParallel(measured, func(n int) { w.WaitAttached(t, world.AttachmentName(volumes[n], node)) })
	})
	s.detached = p.measure(t, measured, func() {
		inParallel(measured, func(n int) { w.DeleteAttachment(t, world.AttachmentName(volumes[n], node)) })
		world.Eventually(t, func(ctx context.Context) error { return noAttachmentsOn(ctx, w, node) })
	})
	s.peak = peakMemory(t, p.PID())

	s.attached.checkBudget(t, firstAttachBudget)
	s.detached.checkBudget(t, detachBudget)
	for what, c := range map[string]*cost{"attaching": s.attached, "detaching": s.detached} {
		if c.calls != c.n {
			t.Errorf("%s took %d calls for %d volumes", what, c.calls, c.n)
		}
	}
	if s.peak > manyMemoryBudget {
		t.Errorf("up to %d MiB were resident among %d VolumeAttachments, more than %d", s.peak>>20, objects, manyMemoryBudget>>20)
	}
	p.Kill()
	return s
}

// compareAttachers checks that an attachment costs the same among many others.
func compareAttachers(t *testing.T, few, many *attacherResult) {
	t.Helper()
	if few.start.Total() != many.start.Total() {
		t.Errorf("starting the attacher takes other requests among few (%v) than among many (%v)", few.start, many.start)
	}
	few.attached.checkSame(t, "attached", many.attached)
	few.detached.checkSame(t, "detached", many.detached)
}

func manyAttachTable(results []*attacherResult) string {
	b := newColumns(results)
	b.row("volumes and attachments", func(s *attacherResult) string {
		return fmt.Sprintf("%d, of which %d ours", s.objects, s.objects/everyNthIsOurs)
	})
	b.line()
	startupRows(b, func(s *attacherResult) *startup { return &s.startup })
	b.row("peak memory", func(s *attacherResult) string { return fmt.Sprintf("%d MiB RSS", s.peak>>20) })
	b.row("one volume attached", func(s *attacherResult) string { return s.attached.String() })
	b.row("one volume detached", func(s *attacherResult) string { return s.detached.String() })
	return b.String()
}
