package mounts

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRemoveAllRemovesNothingOfWhatIsMounted(t *testing.T) {
	volume, dir := t.TempDir(), filepath.Join(t.TempDir(), "uid-p")
	precious := filepath.Join(volume, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"", "main/criu/root", "main/criu/cgroup"} {
		target := filepath.Join(dir, at)
		if err := errors.Join(os.MkdirAll(target, 0o700), unix.Mount(volume, target, "", unix.MS_BIND, "")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) }) // if the test has failed
	}
	if err := RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("the file of the volume is gone: %v", err)
	}
	if err := RemoveAll(dir); err != nil {
		t.Errorf("a directory that is gone: %v", err)
	}
}
