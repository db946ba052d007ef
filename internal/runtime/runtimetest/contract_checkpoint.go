package runtimetest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

var checkpointRows = map[string]func(*testing.T, Node){
	"the probe says what the engine works with": func(t *testing.T, node Node) {
		c := probe(t, node.Engine())
		if c.Kernel == "" || c.Architecture == "" || c.CgroupMode != "v1" && c.CgroupMode != "v2" || len(c.Steps) == 0 {
			t.Errorf("Probe() = %+v, want a kernel, an architecture, v1 or v2, and steps", c)
		}
	},
	"a checkpoint has a complete dump of each container, in their order, and all run on": func(t *testing.T, node Node) {
		engine := node.Engine()
		containers := pod(t, node, engine)
		slices.Reverse(containers)
		dumps := checkpoint(t, engine, "checkpoint-1", containers...)
		wantThawed(t, node, containers...)
		for i, dump := range dumps {
			if got := dump.Report().Container; got != containers[i] {
				t.Errorf("dump %d is of %+v, want %+v", i, got, containers[i])
			}
			wantComplete(t, readFiles(t, dump, false))
		}
	},
	"a report says what was dumped, how, and for how long the container was frozen": func(t *testing.T, node Node) {
		engine := node.Engine()
		c := node.Start("web", "main")
		dump := checkpoint(t, engine, "checkpoint-1", c)[0]
		r := dump.Report()
		capability := probe(t, engine)
		if r.Container != c || r.Engine != engine.Name() || r.Step == "" || r.ImageName == "" {
			t.Errorf("Report() = %+v, want the container, the engine, a step and an image", r)
		}
		if !slices.Contains(capability.Steps, r.Step) || r.Capability.Kernel != capability.Kernel {
			t.Errorf("Report() = %+v, want a step and the kernel of %+v", r, capability)
		}
		if r.FrozenAt.IsZero() || r.Frozen <= 0 {
			t.Errorf("frozen at %s for %s", r.FrozenAt, r.Frozen)
		}
		var size int64
		for _, file := range readFiles(t, dump, false) {
			size += int64(len(file))
		}
		if r.Bytes != size {
			t.Errorf("Report() says %d bytes, the files have %d", r.Bytes, size)
		}
	},
	"several containers are all frozen before the first is dumped, or are rejected": func(t *testing.T, node Node) {
		engine := node.Engine()
		containers := []runtime.Container{node.Start("web", "main"), node.Start("web", "sidecar"), node.Start("web", "log")}
		if !probe(t, engine).OneInstant {
			checkpointFails(t, node, engine, containers, runtime.RuntimeUnsupported)
			return
		}
		checkpoint(t, engine, "checkpoint-1", containers...)
		frozen := 0
		for _, event := range node.Events() {
			switch {
			case event.What == "freeze":
				frozen++
			case event.What == "dump" && frozen < len(containers):
				t.Errorf("container %s is dumped when only %d are frozen", event.Container, frozen)
			case event.What == "thaw" && frozen < len(containers):
				t.Errorf("container %s is thawed when only %d are frozen", event.Container, frozen)
			}
		}
		if frozen != len(containers) {
			t.Errorf("%d containers were frozen, want %d", frozen, len(containers))
		}
	},
	"a request that makes no sense is rejected": func(t *testing.T, node Node) {
		engine := node.Engine()
		c := node.Start("web", "main")
		other := node.Start("db", "main")
		for name, containers := range map[string][]runtime.Container{
			"none": nil, "twice": {c, c}, "two pods": {c, other}, "no ID": {{Namespace: c.Namespace, Pod: c.Pod, PodUID: c.PodUID, Name: c.Name}},
		} {
			if _, err := engine.Checkpoint(t.Context(), "checkpoint-1", containers, runtime.Options{}); err == nil {
				t.Errorf("%s: Checkpoint() has succeeded", name)
			}
		}
		for _, id := range []string{"", ".", "..", "../x", "a/b", ".x", "a b"} {
			if _, err := engine.Checkpoint(t.Context(), id, []runtime.Container{c}, runtime.Options{}); err == nil {
				t.Errorf("Checkpoint(%q) has succeeded", id)
			}
		}
		wantNothingLeft(t, node, c, other)
	},
	"a second checkpoint with the same ID is rejected, and leaves the first as it is": func(t *testing.T, node Node) {
		engine := node.Engine()
		c := node.Start("web", "main")
		dump := checkpoint(t, engine, "checkpoint-1", c)[0]
		if _, err := engine.Checkpoint(t.Context(), "checkpoint-1", []runtime.Container{c}, runtime.Options{}); err == nil {
			t.Error("the second checkpoint has succeeded")
		}
		wantThawed(t, node, c)
		wantComplete(t, readFiles(t, dump, false))
	},
	"an ID is free again after all dumps were discarded": func(t *testing.T, node Node) {
		engine := node.Engine()
		containers := pod(t, node, engine)
		for range 2 {
			for _, dump := range checkpoint(t, engine, "checkpoint-1", containers...) {
				discard(t, dump)
			}
			wantNothingLeft(t, node, containers...)
		}
	},
}

var failureRows = map[string]func(*testing.T, Node){
	"a dump that fails leaves no container frozen, and nothing on disk": func(t *testing.T, node Node) {
		engine := node.Engine()
		containers := pod(t, node, engine)
		node.FailDump(containers[len(containers)-1])
		checkpointFails(t, node, engine, containers)
	},
	"a checkpoint succeeds after one that has failed, with the same ID": func(t *testing.T, node Node) {
		engine := node.Engine()
		containers := pod(t, node, engine)
		node.FailDump(containers[0])
		checkpointFails(t, node, engine, containers)
		for _, dump := range checkpoint(t, engine, "checkpoint-1", containers...) {
			wantComplete(t, readFiles(t, dump, false))
		}
	},
	"a call that is cancelled leaves no container frozen, and nothing on disk": func(t *testing.T, node Node) {
		engine := node.Engine()
		containers := pod(t, node, engine)
		started, release := node.HoldDump(containers[len(containers)-1])
		defer release()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			<-started
			cancel()
		}()
		if _, err := engine.Checkpoint(ctx, "checkpoint-1", containers, runtime.Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("Checkpoint() = %v, want that it was cancelled", err)
		}
		wantNothingLeft(t, node, containers...)
	},
	"a call whose context has ended already freezes nothing": func(t *testing.T, node Node) {
		engine := node.Engine()
		containers := pod(t, node, engine)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := engine.Checkpoint(ctx, "checkpoint-1", containers, runtime.Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("Checkpoint() = %v, want that it was cancelled", err)
		}
		wantNothingLeft(t, node, containers...)
	},
}

var identityRows = map[string]func(*testing.T, Node){
	"a container that has ended is not checkpointed": func(t *testing.T, node Node) {
		engine := node.Engine()
		c := node.Start("web", "main")
		node.Stop(c)
		checkpointFails(t, node, engine, []runtime.Container{c}, runtime.ContainerNotRunning, runtime.PodGone)
	},
	"a container of another pod of the same name is not checkpointed": func(t *testing.T, node Node) {
		engine := node.Engine()
		c := node.Start("web", "main")
		node.Replace(c)
		checkpointFails(t, node, engine, []runtime.Container{c}, runtime.ContainerNotRunning, runtime.SourcePodReplaced)
	},
	"a container that is replaced during the call is not returned": func(t *testing.T, node Node) {
		engine := node.Engine()
		c := node.Start("web", "main")
		node.ReplaceInDump(c)
		checkpointFails(t, node, engine, []runtime.Container{c}, runtime.ContainerNotRunning, runtime.SourcePodReplaced)
	},
}
