package runtimetest

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

var filesRows = map[string]func(*testing.T, Node){
	"files can be read twice if they are not consumed": func(t *testing.T, node Node) {
		dump := checkpoint(t, node.Engine(), "checkpoint-1", node.Start("web", "main"))[0]
		first, second := readFiles(t, dump, false), readFiles(t, dump, false)
		wantComplete(t, first)
		if !maps.Equal(first, second) {
			t.Error("the second pass has read something else")
		}
	},
	"files can be read once if they are consumed": func(t *testing.T, node Node) {
		dump := checkpoint(t, node.Engine(), "checkpoint-1", node.Start("web", "main"))[0]
		wantComplete(t, readFiles(t, dump, true))
		err := dump.Files(t.Context(), false, func(runtime.File) error { return nil })
		if err == nil {
			t.Error("the second pass has succeeded")
		}
		discard(t, dump)
		wantNothingLeft(t, node)
	},
	"a file that is not read to its end does not disturb the next": func(t *testing.T, node Node) {
		dump := checkpoint(t, node.Engine(), "checkpoint-1", node.Start("web", "main"))[0]
		names := map[string]string{}
		err := dump.Files(t.Context(), false, func(file runtime.File) error {
			names[file.Name] = "x"
			_, err := io.CopyN(io.Discard, file, min(1, file.Size))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		wantComplete(t, names)
	},
	"the pass ends with the first error of the caller": func(t *testing.T, node Node) {
		dump := checkpoint(t, node.Engine(), "checkpoint-1", node.Start("web", "main"))[0]
		want, calls := errors.New("full"), 0
		err := dump.Files(t.Context(), false, func(runtime.File) error { calls++; return want })
		if !errors.Is(err, want) || calls != 1 {
			t.Errorf("Files() = %v after %d calls, want %v after 1", err, calls, want)
		}
		wantComplete(t, readFiles(t, dump, false))
	},
	"the pass ends with its context": func(t *testing.T, node Node) {
		dump := checkpoint(t, node.Engine(), "checkpoint-1", node.Start("web", "main"))[0]
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		err := dump.Files(ctx, false, func(runtime.File) error { cancel(); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Files() = %v, want that it was cancelled", err)
		}
	},
	"discard removes everything, and is idempotent": func(t *testing.T, node Node) {
		dump := checkpoint(t, node.Engine(), "checkpoint-1", node.Start("web", "main"))[0]
		if len(node.Left()) == 0 {
			t.Error("the node does not know of the dump")
		}
		for range 2 {
			discard(t, dump)
			wantNothingLeft(t, node)
		}
		if err := dump.Files(t.Context(), false, func(runtime.File) error { return nil }); err == nil {
			t.Error("Files() has succeeded after Discard")
		}
	},
	"discard of one dump leaves those of other checkpoints": func(t *testing.T, node Node) {
		engine := node.Engine()
		c := node.Start("web", "main")
		first, second := checkpoint(t, engine, "checkpoint-1", c)[0], checkpoint(t, engine, "checkpoint-2", c)[0]
		discard(t, first)
		wantComplete(t, readFiles(t, second, false))
	},
}

// readFiles reads all files of a dump.
func readFiles(t *testing.T, dump runtime.Dump, consume bool) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := dump.Files(t.Context(), consume, func(file runtime.File) error {
		content, err := io.ReadAll(file)
		if err != nil {
			return err
		}
		if int64(len(content)) != file.Size || !file.Mode.IsRegular() {
			t.Errorf("%s has %d bytes and mode %s, want %d bytes and a regular file", file.Name, len(content), file.Mode, file.Size)
		}
		if _, ok := files[file.Name]; ok {
			t.Errorf("%s comes twice", file.Name)
		}
		files[file.Name] = string(content)
		return nil
	})
	if err != nil {
		t.Fatalf("reading the files: %v", err)
	}
	return files
}

// wantComplete checks that files are those of a checkpoint.
func wantComplete(t *testing.T, files map[string]string) {
	t.Helper()
	names := slices.Sorted(maps.Keys(files))
	for _, want := range []string{"config.dump", "spec.dump", "checkpoint/inventory.img"} {
		if files[want] == "" {
			t.Errorf("%s is missing or empty; there are %q", want, names)
		}
	}
	for prefix, what := range map[string]string{"checkpoint/pages-": "memory", "checkpoint/pagemap-": "map of the memory"} {
		if !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, prefix) }) {
			t.Errorf("there is no %s; there are %q", what, names)
		}
	}
}

func discard(t *testing.T, dump runtime.Dump) {
	t.Helper()
	if err := dump.Discard(); err != nil {
		t.Errorf("Discard(): %v", err)
	}
}
