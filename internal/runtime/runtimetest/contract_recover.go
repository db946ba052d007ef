package runtimetest

import (
	"errors"
	"maps"
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

var recoverRows = map[string]func(*testing.T, Node){
	"there is nothing to recover on a new node": func(t *testing.T, node Node) {
		if found := recovered(t, node); len(found) > 0 {
			t.Errorf("Recover() = %v", found)
		}
		wantNothingLeft(t, node)
	},
	"containers that a process left frozen are thawed":       dies(Frozen),
	"a dump that a process left incomplete is removed":       dies(Dumping),
	"a checkpoint that is complete is returned under its ID": diesAfter,
	"a checkpoint is returned again until it is discarded": func(t *testing.T, node Node) {
		engine := node.Engine()
		containers := pod(t, node, engine)
		want := readFiles(t, checkpoint(t, engine, "checkpoint-1", containers...)[0], false)
		for range 2 {
			dumps := recovered(t, node)["checkpoint-1"]
			if len(dumps) != len(containers) {
				t.Fatalf("Recover() has returned %d dumps, want %d", len(dumps), len(containers))
			}
			if !maps.Equal(readFiles(t, dumps[0], false), want) {
				t.Error("the files are not those of the checkpoint")
			}
		}
		for _, dump := range recovered(t, node)["checkpoint-1"] {
			discard(t, dump)
		}
		if found := recovered(t, node); len(found) > 0 {
			t.Errorf("Recover() = %v after Discard", found)
		}
		wantNothingLeft(t, node, containers...)
	},
	"only what was not discarded is returned": func(t *testing.T, node Node) {
		engine := node.Engine()
		containers := pod(t, node, engine)
		dumps := checkpoint(t, engine, "checkpoint-1", containers...)
		discard(t, dumps[0])
		found := recovered(t, node)["checkpoint-1"]
		if len(found) != len(dumps)-1 {
			t.Fatalf("Recover() has returned %d dumps, want %d", len(found), len(dumps)-1)
		}
		for i, dump := range found {
			if got := dump.Report().Container; got != containers[i+1] {
				t.Errorf("the dump is of %+v, want %+v", got, containers[i+1])
			}
			discard(t, dump)
		}
		wantNothingLeft(t, node, containers...)
	},
	"a dump that was consumed in part is removed": func(t *testing.T, node Node) {
		c := node.Start("web", "main")
		dump := checkpoint(t, node.Engine(), "checkpoint-1", c)[0]
		died := errors.New("the process has died")
		if err := dump.Files(t.Context(), true, func(runtime.File) error { return died }); !errors.Is(err, died) {
			t.Errorf("Files() = %v, want %v", err, died)
		}
		if found := recovered(t, node); len(found) > 0 {
			t.Errorf("Recover() = %v", found)
		}
		wantNothingLeft(t, node, c)
	},
	"a container that a dead process has checkpointed can be checkpointed again": func(t *testing.T, node Node) {
		c := node.Start("web", "main")
		node.Die(Dumping, "checkpoint-1", c)
		recovered(t, node)
		wantComplete(t, readFiles(t, checkpoint(t, node.Engine(), "checkpoint-1", c)[0], false))
	},
	"a container that has ended after its process died is no error": func(t *testing.T, node Node) {
		c := node.Start("web", "main")
		node.Die(Frozen, "checkpoint-1", c)
		node.Stop(c)
		if found := recovered(t, node); len(found) > 0 {
			t.Errorf("Recover() = %v", found)
		}
		wantNothingLeft(t, node, c)
	},
}

// dies is the row of a process that dies before the checkpoint is complete.
func dies(at Point) func(*testing.T, Node) {
	return func(t *testing.T, node Node) {
		containers := pod(t, node, node.Engine())
		node.Die(at, "checkpoint-1", containers...)
		if len(node.Left()) == 0 {
			t.Error("nothing is left on disk before Recover: the process did not get far enough")
		}
		if found := recovered(t, node); len(found) > 0 {
			t.Errorf("Recover() = %v", found)
		}
		wantNothingLeft(t, node, containers...)
	}
}

func diesAfter(t *testing.T, node Node) {
	containers := pod(t, node, node.Engine())
	node.Die(After, "checkpoint-1", containers...)
	found := recovered(t, node)
	if len(found) != 1 || len(found["checkpoint-1"]) != len(containers) {
		t.Fatalf("Recover() = %v, want %d dumps of checkpoint-1", found, len(containers))
	}
	for i, dump := range found["checkpoint-1"] {
		if r := dump.Report(); r.Container != containers[i] || r.Engine == "" || r.Bytes == 0 {
			t.Errorf("the report is %+v, want that of %+v", r, containers[i])
		}
		wantComplete(t, readFiles(t, dump, false))
		discard(t, dump)
	}
	wantNothingLeft(t, node, containers...)
}
