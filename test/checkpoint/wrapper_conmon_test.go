package checkpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// testAsConmon: CRI-O's monitor calls create, CRI-O looks at the state, and calls start. The
// node has no CRI-O: this test makes its calls.
func (w *wrappedNode) testAsConmon(t *testing.T) {
	const uid = "uid-of-cri-o"
	source := w.newPod(t, "for-conmon", "")
	c := source.running(t, 0)
	_, last := source.countsOn(t)
	dump := w.checkpoint(t, c, runtime.Options{})

	// What the agent does.
	place, err := ticket.At(w.path(w.dir), uid, "main")
	if err != nil {
		t.Fatal(err)
	}
	r := newRestored(t, w.node, c)
	data := &restored{node: w.node, dir: filepath.Join(w.dir, uid, "main", "data")}
	if err := dump.Files(t.Context(), false, data.write); err != nil {
		t.Fatal(err)
	}
	if err := place.Issue(ticket.Ticket{Request: "c-1", Decision: ticket.Restore, Expires: time.Now().Add(timeout)}); err != nil {
		t.Fatal(err)
	}

	// What CRI-O does.
	w.Run(t, w.name, "cp", data.dir+"/spec.dump", r.dir)
	r.mount(t, c)
	r.writeSpec(t, map[string]string{
		"io.kubernetes.cri-o.ContainerType": "container",
		"io.kubernetes.cri-o.Labels":        fmt.Sprintf(`{"io.kubernetes.pod.uid":%q,"io.kubernetes.container.name":"main"}`, uid),
		"io.kubernetes.cri-o.ImageName":     busybox,
		ticket.Annotation:                   "c-1",
	})
	call := fmt.Sprintf("cd %s && %s --root=%s/state --log=%s/log/runtime.log ", r.dir, runtimeAt, r.dir, r.dir)
	status := func() string {
		var state struct{ Status string }
		if err := json.Unmarshal([]byte(w.Run(t, w.name, "sh", "-c", call+"state "+r.id)), &state); err != nil {
			t.Fatal(err)
		}
		return state.Status
	}
	w.Run(t, w.name, "sh", "-c", call+fmt.Sprintf("create --bundle %s/bundle --pid-file %s/pid %s >output 2>error </dev/null || { cat error log/runtime.log; exit 1; } >&2", r.dir, r.dir, r.id))
	if got := status(); got != "created" {
		t.Errorf("before the start the state is %q", got)
	}
	w.Run(t, w.name, "sh", "-c", call+"start "+r.id)
	if got := status(); got != "running" {
		t.Errorf("after the start the state is %q", got)
	}
	waitFor(t, "the container counts", func(ctx context.Context) (bool, error) {
		said, err := w.TryRun(ctx, w.name, "head", "-n", "3", r.dir+"/output")
		return strings.Count(said, "\n") == 3, err
	})
	var first int
	if _, err := fmt.Sscan(w.Run(t, w.name, "head", "-n", "1", r.dir+"/output"), &first); err != nil || first < last {
		t.Errorf("the container begins with %d, %v, want it to go on from %d", first, err, last)
	}
	if outcome, err := place.Outcome(); err != nil || outcome.Error != "" || outcome.ContainerID != r.id {
		t.Errorf("the outcome is %+v, %v", outcome, err)
	}
}
