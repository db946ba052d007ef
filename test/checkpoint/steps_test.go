package checkpoint

import (
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A program that checks its memory goes on after the checkpoint, and again when the
// checkpoint is restored.
func TestRestore(t *testing.T) {
	tests := map[string][]string{
		"one area of private memory": {"a=private:64"},
	}
	for name, areas := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, nil)
			c := n.runWorkload(t, "workload", areas...)
			before := n.rounds(t, c)
			d := n.checkpoint(t, c, runtime.Options{})
			n.waitRounds(t, c, areas, before, 2)
			t.Logf("step %s (%s), frozen for %s, %d bytes", d.Report().Step, d.Report().Reason, d.Report().Frozen, d.Report().Bytes)
			n.restore(t, d, false).waitRounds(t, areas)
		})
	}
}
