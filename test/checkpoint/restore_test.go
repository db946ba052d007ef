package checkpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A restored container is one that runc has restored beside its original, in the same pod.
type restored struct {
	*node
	dir, id string
}

// restore writes the files of a checkpoint to disk and has runc restore them.
func (n *node) restore(t *testing.T, d runtime.Dump, consume bool) *restored {
	t.Helper()
	c := d.Report().Container
	r := newRestored(t, n, c)
	if err := d.Files(t.Context(), consume, r.write); err != nil {
		t.Fatal(err)
	}
	r.Run(t, r.name, "tar", "-C", r.dir+"/upper", "-xf", r.dir+"/rootfs-diff.tar")
	r.mount(t, c)
	r.writeSpec(t, nil)
	r.Run(t, n.name, "sh", "-c", fmt.Sprintf("cd %s && runc --root %s/state restore --detach --bundle bundle"+
		" --pid-file %s/pid --image-path %s/checkpoint --work-path %s/log %s >output 2>error </dev/null || { cat error; grep Error log/restore.log; exit 1; } >&2",
		r.dir, r.dir, r.dir, r.dir, r.dir, r.id))
	return r
}

func newRestored(t *testing.T, n *node, of runtime.Container) *restored {
	t.Helper()
	r := &restored{node: n, dir: "/var/lib/restored-" + of.ID[:12], id: "restored-" + of.ID[:12]}
	t.Cleanup(func() { r.remove(t) })
	for _, dir := range []string{"bundle/rootfs", "upper", "work", "log"} {
		if err := os.MkdirAll(filepath.Join(n.path(r.dir), dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *restored) write(file runtime.File) error {
	name := filepath.Join(r.path(r.dir), file.Name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	to, err := os.Create(name)
	if err != nil {
		return err
	}
	defer to.Close()
	written, err := io.Copy(to, file)
	if err == nil && written != file.Size {
		err = fmt.Errorf("%s has %d bytes, not %d", file.Name, written, file.Size)
	}
	return err
}

// mount makes the root file system: the layers of the original's image, and the changes
// that are in the upper directory.
func (r *restored) mount(t *testing.T, c runtime.Container) {
	t.Helper()
	mounts := r.Run(t, r.name, "cat", "/proc/self/mountinfo")
	for line := range strings.Lines(mounts) {
		if !strings.Contains(line, c.ID+"/rootfs ") {
			continue
		}
		_, lower, _ := strings.Cut(line, "lowerdir=")
		lower, _, _ = strings.Cut(lower, ",")
		r.Run(t, r.name, "mount", "-t", "overlay", "overlay", "-o",
			fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, r.dir, r.dir), r.dir+"/bundle/rootfs")
		return
	}
	t.Fatalf("container %s has no root file system on the node", c.ID)
}

// writeSpec writes the specification: that of the original, in a control group of its own.
// Annotations replace those of the original.
func (r *restored) writeSpec(t *testing.T, annotations map[string]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.path(r.dir), "spec.dump"))
	if err != nil {
		t.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	linux := spec["linux"].(map[string]any)
	linux["cgroupsPath"] = filepath.Dir(linux["cgroupsPath"].(string)) + "/" + r.id
	if annotations != nil {
		spec["annotations"] = annotations
	}
	if text, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.path(r.dir), "bundle/config.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *restored) remove(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	if _, err := r.TryRun(ctx, r.name, "sh", "-c", fmt.Sprintf(
		"runc --root %s/state delete --force %s; umount %s/bundle/rootfs; rm -rf %s", r.dir, r.id, r.dir, r.dir)); err != nil {
		t.Error(err)
	}
}

// waitRounds waits until the restored workload has found each of its areas right, twice:
// all pages have been checked at least once from the beginning to the end then.
func (r *restored) waitRounds(t *testing.T, areas []string) {
	t.Helper()
	waitFor(t, "the restored workload has checked its memory", func(context.Context) (bool, error) {
		file, err := os.Open(filepath.Join(r.path(r.dir), "output"))
		if err != nil {
			return false, err
		}
		defer file.Close()
		return haveMore(readRounds(t, file), nil, areas, 2), nil
	})
}
