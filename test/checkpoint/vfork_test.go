package checkpoint

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/test/cluster"
)

// A shell that starts one program after the other is often between vfork and exec, where CRIU
// cannot stop it. No checkpoint meets it there.
func TestVfork(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	c := n.run(t, "starts-programs", cluster.BusyboxImage, []string{"sh", "-c", "while true; do /bin/busybox true; done"})[0]
	rounds := 10
	if *full {
		rounds = 100
	}
	for range rounds {
		dumps, err := n.engine.Checkpoint(t.Context(), "vfork", []runtime.Container{c}, runtime.Options{Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if err := dumps[0].Discard(); err != nil {
			t.Fatal(err)
		}
	}
}
