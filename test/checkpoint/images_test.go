package checkpoint

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime/runc"
)

// Images that are to be restored are held in memory of the node, within its limit.
func TestImagesAreHeldInMemory(t *testing.T) {
	const size = 64 << 20
	n := newNode(t, func(c *runc.Config) { c.MaxMemory = 2 * size })
	all := n.state + "-images"
	if err := os.MkdirAll(n.path(all), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := n.TryRun(context.WithoutCancel(t.Context()), n.name, "sh", "-c", fmt.Sprintf("umount %[1]s/first; rm -rf %[1]s", all)); err != nil {
			t.Error(err)
		}
	})
	hold := func(name string) string {
		reason, err := n.engine.HoldImages(t.Context(), all, filepath.Join(all, name), map[string]int64{"pages-1.img": size}, 0)
		if err != nil {
			t.Fatal(err)
		}
		return reason
	}
	if reason := hold("first"); reason != "" {
		t.Fatalf("the images are not in RAM: %s", reason)
	}
	var stat unix.Statfs_t
	dir := n.path(filepath.Join(all, "first"))
	if err := unix.Statfs(dir, &stat); err != nil || stat.Type != unix.TMPFS_MAGIC {
		t.Errorf("the images are in a file system of type %#x, error %v", stat.Type, err)
	}
	info, err := os.Stat(filepath.Join(dir, "pages-1.img"))
	if err != nil {
		t.Fatal(err)
	}
	if blocks := info.Sys().(*syscall.Stat_t).Blocks * 512; info.Size() != size || blocks < size {
		t.Errorf("the image has %d bytes, and %d of memory, want %d", info.Size(), blocks, size)
	}
	if reason := hold("second"); !strings.Contains(reason, "64 are in use") {
		t.Errorf("more is held than is permitted: %q", reason)
	}
	if _, err := os.Stat(n.path(filepath.Join(all, "second"))); !os.IsNotExist(err) {
		t.Errorf("something is left of what was refused: %v", err)
	}
}
