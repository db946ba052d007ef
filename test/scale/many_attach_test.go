package scale

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/test/proxy"
	"github.com/holdfast-io/holdfast/test/world"
)

// attachSight is what was seen of the attacher in a cluster of some size.
type attachSight struct {
	objects            int
	ready              time.Duration
	start              proxy.Counts
	startCPU           time.Duration
	memory             footprint
	peak               int64 // bytes resident
	attached, detached *cost
}

// lookAtAttacher measures one process from its start to its last detachment.
// There is no survey: the driver does not know the volumes that were there.
func lookAtAttacher(t *testing.T, w *world.World, objects int) *attachSight {
	t.Helper()
	node := w.CSINode(t, fmt.Sprintf("node-%d", objects), "node-1")
	volumes := make([]string, measured)
	each(measured, func(n int) { volumes[n] = w.Volume(t, fmt.Sprintf("attach-%d-%d", objects, n), nil).Name })
	p := startRole(t, w, func(t testing.TB, args ...string) *world.Process {
		return w.Attacher(t, append(args, "--reconcile-sync=0")...)
	}, csi.ControllerPublishVolume, csi.ControllerUnpublishVolume)
	s := &attachSight{objects: objects, ready: p.ready(t)}
	s.start = p.settled(t)
	s.startCPU, s.memory = processor(t, p.PID()), memory(t, p.PID())
	s.attached = p.phase(t, measured, func() {
		each(measured, func(n int) { w.Attach(t, volumes[n], node) })
		each(measured, func(n int) { w.Attached(t, world.AttachmentName(volumes[n], node)) })
	})
	s.detached = p.phase(t, measured, func() {
		each(measured, func(n int) { w.Detach(t, world.AttachmentName(volumes[n], node)) })
		world.Eventually(t, func(ctx context.Context) error { return noneOn(ctx, w, node) })
	})
	s.peak = peak(t, p.PID())

	s.attached.within(t, firstAttachBudget)
	s.detached.within(t, detachBudget)
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

// compareAttachers asserts that an attachment costs as much among many others.
func compareAttachers(t *testing.T, few, many *attachSight) {
	t.Helper()
	if few.start.Total() != many.start.Total() {
		t.Errorf("a start of the attacher takes other requests among few (%v) than among many (%v)", few.start, many.start)
	}
	few.attached.same(t, "attached", many.attached)
	few.detached.same(t, "detached", many.detached)
}

func manyAttachTable(sights []*attachSight) string {
	b := newColumns(sights)
	b.row("volumes and attachments", func(s *attachSight) string { return fmt.Sprintf("%d, of which %d ours", s.objects, s.objects/ourShare) })
	b.line()
	b.row("start to ready", func(s *attachSight) string { return fmt.Sprintf("%.2f s", s.ready.Seconds()) })
	b.row("requests until it rests", func(s *attachSight) string { return fmt.Sprint(s.start.Total()) })
	b.row("processor until it rests", func(s *attachSight) string { return fmt.Sprintf("%.2f s", s.startCPU.Seconds()) })
	b.row("memory then", func(s *attachSight) string { return s.memory.String() })
	b.row("memory at its peak", func(s *attachSight) string { return fmt.Sprintf("%d MiB RSS", s.peak>>20) })
	b.row("a volume attached", func(s *attachSight) string { return s.attached.String() })
	b.row("a volume detached", func(s *attachSight) string { return s.detached.String() })
	return b.String()
}
