package runtimetest

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A Node is what the contract needs of a node beside its engine. Methods fail the test that
// the Node was made for if they cannot do what they say.
type Node interface {
	// Engine returns an engine as a process has it that has just started. The test does not
	// use those of before any more.
	Engine() runtime.Engine
	// Start starts a container of a pod. Containers of pods of the same name are in one pod.
	Start(pod, container string) runtime.Container
	// Stop ends a container.
	Stop(runtime.Container)
	// Replace ends a container, and starts one of the same name in another pod of the same
	// name.
	Replace(runtime.Container)
	// IsFrozen returns whether a container is frozen.
	IsFrozen(runtime.Container) bool
	// Left returns the paths of everything that checkpoints have left on the node: dumps,
	// also incomplete ones, and what the journal has.
	Left() []string

	// FailDump has the next dump of a container fail midway, with its container left frozen
	// and a part of its files left on disk, if the runtime may do so.
	FailDump(runtime.Container)
	// HoldDump has the next dump of a container wait until release is called or its context
	// ends. It closes started when the container is frozen and its dump waits.
	HoldDump(runtime.Container) (started <-chan struct{}, release func())
	// ReplaceInDump replaces a container as Replace does, during its next dump.
	ReplaceInDump(runtime.Container)
	// Die has a process call Checkpoint and die at a point: Frozen, Dumping (of the last
	// container) or After.
	Die(at Point, id string, containers ...runtime.Container)
	// Events returns what has happened to containers, in order. It is called only if the
	// engine can checkpoint several containers.
	Events() []Event
}

// Run checks that an engine does what [runtime.Engine] says. Each row gets a node of its own,
// and all run in parallel.
func Run(t *testing.T, newNode func(*testing.T) Node) {
	t.Helper()
	RunSome(t, newNode, func(int) bool { return true })
}

// RunSome is Run with those rows only, by their numbers in the order of their names, that are
// wanted: for nodes that are slow.
func RunSome(t *testing.T, newNode func(*testing.T) Node, want func(row int) bool) {
	t.Helper()
	rows := map[string]func(*testing.T, Node){}
	for _, group := range []map[string]func(*testing.T, Node){
		checkpointRows, failureRows, identityRows, filesRows, recoverRows, concurrencyRows,
	} {
		maps.Copy(rows, group)
	}
	for i, name := range slices.Sorted(maps.Keys(rows)) {
		if !want(i) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rows[name](t, newNode(t))
		})
	}
}

// checkpoint checkpoints containers, and ends the test if that fails.
func checkpoint(t *testing.T, engine runtime.Engine, id string, containers ...runtime.Container) []runtime.Dump {
	t.Helper()
	dumps, err := engine.Checkpoint(t.Context(), id, containers, runtime.Options{})
	if err != nil {
		t.Fatalf("Checkpoint(%s): %v", id, err)
	}
	if len(dumps) != len(containers) {
		t.Fatalf("Checkpoint(%s) has returned %d dumps of %d containers", id, len(dumps), len(containers))
	}
	return dumps
}

// checkpointFails checks that a checkpoint fails with one of the reasons, any if there are
// none, and leaves nothing behind.
func checkpointFails(t *testing.T, node Node, engine runtime.Engine, containers []runtime.Container, reasons ...runtime.Reason) {
	t.Helper()
	dumps, err := engine.Checkpoint(t.Context(), "checkpoint-1", containers, runtime.Options{})
	if err == nil {
		t.Fatalf("Checkpoint() has returned %d dumps, want an error", len(dumps))
	}
	wantReason(t, err, reasons...)
	wantNothingLeft(t, node, containers...)
}

func wantReason(t *testing.T, err error, reasons ...runtime.Reason) {
	t.Helper()
	for _, reason := range reasons {
		if runtime.ReasonOf(err) == reason {
			return
		}
	}
	if len(reasons) > 0 {
		t.Errorf("the error is %s (%v), want %v", runtime.ReasonOf(err), err, reasons)
	}
}

// wantNothingLeft checks that no container is frozen, and nothing on disk.
func wantNothingLeft(t *testing.T, node Node, containers ...runtime.Container) {
	t.Helper()
	wantThawed(t, node, containers...)
	if left := node.Left(); len(left) > 0 {
		t.Errorf("left on disk: %q", left)
	}
}

func wantThawed(t *testing.T, node Node, containers ...runtime.Container) {
	t.Helper()
	for _, c := range containers {
		if node.IsFrozen(c) {
			t.Errorf("container %s is left frozen", c.Name)
		}
	}
}

// pod returns as many containers of one pod as the engine takes in one call.
func pod(t *testing.T, node Node, engine runtime.Engine) []runtime.Container {
	t.Helper()
	containers := []runtime.Container{node.Start("web", "main")}
	if probe(t, engine).OneInstant {
		containers = append(containers, node.Start("web", "sidecar"))
	}
	return containers
}

func probe(t *testing.T, engine runtime.Engine) *runtime.Capability {
	t.Helper()
	capability, err := engine.Probe(t.Context())
	if err != nil {
		t.Fatalf("Probe(): %v", err)
	}
	return capability
}

// recovered calls Recover on a new engine, and returns what it has found.
func recovered(t *testing.T, node Node) map[string][]runtime.Dump {
	t.Helper()
	found, err := node.Engine().Recover(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatalf("Recover(): %v", err)
	}
	return found
}
