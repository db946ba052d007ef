package checkpoint

import (
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/runc"
)

// A program that checks its memory goes on after the checkpoint, and again when the
// checkpoint is restored.
func TestRestore(t *testing.T) {
	tests := []struct {
		name  string
		areas []string
	}{
		{"private memory", []string{"a=private:64"}},
		{"several threads", []string{"a=private:16", "b=private:16", "c=private:16", "d=private:16"}},
		{"processes that share pages until a write", []string{"a=fork:32", "b=private:16"}},
		{"shared memory", []string{"a=shared:32", "b=memfd:16", "c=private:16"}},
		{"stacks, guard pages and changed files", []string{"a=stack:16", "b=guard:16", "c=file:16"}},
		{"executable, locked and huge pages", []string{"a=exec:8", "b=locked:8", "c=huge:32"}},
	}
	for row, tt := range tests {
		for g, step := range []runtime.Step{runtime.FreezeCopy, runtime.Tmpfs, runtime.Disk} {
			if !inSample(g, row, 3) {
				continue
			}
			t.Run(tt.name+", "+string(step), func(t *testing.T) {
				t.Parallel()
				n := newNode(t, func(c *runc.Config) { c.WithoutFreezeCopy = step == runtime.Tmpfs })
				testRestore(t, n, step, tt.areas)
			})
		}
	}
}

func testRestore(t *testing.T, n *node, step runtime.Step, areas []string) {
	t.Helper()
	c := n.runWorkload(t, "workload", areas...)
	before := n.rounds(t, c)
	d := n.checkpoint(t, c, runtime.Options{Fast: step != runtime.Disk})
	report := d.Report()
	t.Logf("step %s (%s), frozen for %s, %d bytes", report.Step, report.Reason, report.Frozen, report.Bytes)
	if report.Step != step {
		t.Errorf("the step was %s (%s), not %s", report.Step, report.Reason, step)
	}
	n.waitRounds(t, c, areas, before, 2)
	n.restore(t, d, true).waitRounds(t, areas)
}
