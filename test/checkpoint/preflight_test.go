package checkpoint

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/test/cluster"
)

// runtimeRoot is where containerd has the state of runc.
const runtimeRoot = "/run/containerd/runc/k8s.io"

// Every rejection comes before anything is frozen, and names the reason.
func TestPreflight(t *testing.T) {
	none := func(*testing.T, *node, *runtime.Container) {}
	tests := map[string]struct {
		areas   []string // of the workload
		prepare func(*testing.T, *node, *runtime.Container)
		options runtime.Options
		want    runtime.Reason // "" if the checkpoint is made
	}{
		"a container that is paused": {nil, func(t *testing.T, n *node, c *runtime.Container) {
			n.runc(t, "pause", c.ID)
			t.Cleanup(func() {
				if _, err := n.TryRun(context.WithoutCancel(t.Context()), n.name, "runc", "--root", runtimeRoot, "resume", c.ID); err != nil {
					t.Error(err)
				}
			})
		}, runtime.Options{}, runtime.Busy},
		"a container in which somebody has started a process": {nil, func(t *testing.T, n *node, c *runtime.Container) {
			// Its standard output must not stay open.
			n.Run(t, n.name, "sh", "-c", "runc --root "+runtimeRoot+" exec --detach "+c.ID+" /workload >/dev/null 2>&1 </dev/null")
		}, runtime.Options{}, runtime.Busy},
		"a container of another pod": {nil, func(_ *testing.T, _ *node, c *runtime.Container) {
			c.PodUID = "another"
		}, runtime.Options{}, runtime.SourcePodReplaced},
		"a container that does not exist": {nil, func(_ *testing.T, _ *node, c *runtime.Container) {
			c.ID = strings.Repeat("0", 64)
		}, runtime.Options{}, runtime.ContainerNotRunning},
		"established TCP connections":                    {[]string{"a=connected:1"}, none, runtime.Options{}, runtime.EstablishedTCP},
		"established TCP connections that may be closed": {[]string{"a=connected:1"}, none, runtime.Options{CloseTCP: true}, ""},
		"a listening socket":                             {[]string{"a=listening:1"}, none, runtime.Options{}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, nil)
			c := n.runWorkload(t, "pod", tt.areas...)
			freezer := n.freezerOf(t, c)
			tt.prepare(t, n, &c)
			before, err := os.ReadFile(freezer)
			if err != nil {
				t.Fatal(err)
			}
			dumps, err := n.engine.Checkpoint(t.Context(), "checkpoint", []runtime.Container{c}, tt.options)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || runtime.ReasonOf(err) != tt.want) {
				t.Errorf("the checkpoint ended with %v (%s), want %q", err, runtime.ReasonOf(err), tt.want)
			}
			t.Log(err)
			for _, d := range dumps {
				if err := d.Discard(); err != nil {
					t.Error(err)
				}
			}
			if after, err := os.ReadFile(freezer); err != nil || string(after) != string(before) {
				t.Errorf("the freezer was %q and is %q, %v", before, after, err)
			}
		})
	}
}

// A container that would certainly be frozen for too long is not frozen at all.
func TestFrozenTimeIsEstimated(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	c := n.runWorkload(t, "pod", "memory=idle:600")
	before := n.checkpoint(t, c, runtime.Options{})
	report := before.Report()
	if err := before.Discard(); err != nil {
		t.Fatal(err)
	}
	_, err := n.engine.Checkpoint(t.Context(), "too-long", []runtime.Container{c}, runtime.Options{Timeout: report.Frozen / 10})
	if runtime.ReasonOf(err) != runtime.Timeout || !strings.Contains(err.Error(), "nothing was frozen") {
		t.Errorf("with a tenth of the %s of the first, the second checkpoint ended with %v (%s)", report.Frozen, err, runtime.ReasonOf(err))
	}
}

// runc runs runc of the node.
func (n *node) runc(t *testing.T, args ...string) {
	t.Helper()
	n.Run(t, n.name, append([]string{"runc", "--root", runtimeRoot}, args...)...)
}

// All containers of a call are frozen before the first runs again.
func TestGroup(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	// CRIU has a sleep end early: the program must begin another one.
	sleep := []string{"sh", "-c", "while true; do sleep 1; done"}
	containers := n.run(t, "pod", cluster.BusyboxImage, sleep, sleep, sleep)
	for _, fast := range []bool{true, false} {
		dumps, err := n.engine.Checkpoint(t.Context(), "group", containers, runtime.Options{Fast: fast})
		if err != nil {
			t.Fatal(err)
		}
		if len(dumps) != len(containers) {
			t.Fatalf("there are %d dumps of %d containers", len(dumps), len(containers))
		}
		for i, d := range dumps {
			report := d.Report()
			t.Logf("%s: frozen at %s for %s", report.Container.Name, report.FrozenAt, report.Frozen)
			if report.Container != containers[i] {
				t.Errorf("dump %d is of %s", i, report.Container.Name)
			}
			for _, other := range dumps {
				if r := other.Report(); !report.FrozenAt.Before(r.FrozenAt.Add(r.Frozen)) {
					t.Errorf("%s was frozen when %s ran again", report.Container.Name, r.Container.Name)
				}
			}
		}
		for _, d := range dumps {
			if err := d.Discard(); err != nil {
				t.Error(err)
			}
		}
	}
}

// CRIU serves the memory of a container to everybody who connects: nobody on the network of
// the node or of the agent can.
func TestNobodyListensDuringADump(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	c := n.runWorkload(t, "workload", "a=private:64")
	stop, listening := make(chan struct{}), make(chan []string)
	go func() {
		var found []string
		for {
			select {
			case <-stop:
				listening <- found
				return
			default:
			}
			// Of the node, and of this process, which is the agent.
			for _, table := range []string{n.path("/proc/1/net/tcp"), n.path("/proc/1/net/tcp6"), "/proc/self/net/tcp", "/proc/self/net/tcp6"} {
				text, _ := os.ReadFile(table)
				for line := range strings.Lines(string(text)) {
					// 27000, in any state
					if strings.Contains(line, ":6978 ") {
						found = append(found, line)
					}
				}
			}
		}
	}()
	d := n.checkpoint(t, c, runtime.Options{Fast: true})
	close(stop)
	if found := <-listening; len(found) > 0 {
		t.Errorf("the node has sockets of CRIU: %q", found)
	}
	if d.Report().Step != runtime.FreezeCopy {
		t.Errorf("the step was %s: %s", d.Report().Step, d.Report().Reason)
	}
}
