package wrapper

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/ephemeral"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// putBackInto puts an archive back into the root directory of a sandbox.
func (s sandbox) putBackInto(t *testing.T, exclusive bool, archive []byte) error {
	t.Helper()
	name := filepath.Join(t.TempDir(), "volume.tar")
	if err := os.WriteFile(name, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	return putBack(t.Context(), ticket.Volume{Name: "data", Dir: s.root, Exclusive: exclusive}, file)
}

// files returns the names and contents of regular files below the root directory.
func (s sandbox) files(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.Walk(s.root, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		found[path[len(s.root)+1:]] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestVolumesArePutBack(t *testing.T) {
	archive := pack(t, folder("."), folder("var"), file("var/new", "new"), file("etc/passwd", "saved"), file(".wh.etc", "a plain name"),
		item{tar.Header{Name: "deleted", Typeflag: tar.TypeChar, Mode: 0o600}, ""})
	want := map[string]string{"var/new": "new", "etc/passwd": "saved", ".wh.etc": "a plain name"}
	t.Run("with nothing else if no other container has it", func(t *testing.T) {
		s := newSandbox(t)
		before := s.outside(t)
		if err := s.putBackInto(t, true, archive); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, s.files(t)); diff != "" {
			t.Error(diff)
		}
		if after := s.outside(t); after != before {
			t.Errorf("something outside has changed:\n%s\n%s", before, after)
		}
		var stat unix.Stat_t
		if err := unix.Lstat(filepath.Join(s.root, "deleted"), &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFCHR || stat.Rdev != 0 {
			t.Errorf("what marks a deleted file of an overlay: %v, %+v", err, stat)
		}
	})
	t.Run("beside what others have put there", func(t *testing.T) {
		s := newSandbox(t)
		if err := s.putBackInto(t, false, archive); err != nil {
			t.Fatal(err)
		}
		all := map[string]string{"var/log/old": "old", "var/log/sub/deep": "deep"}
		for name, text := range want {
			all[name] = text
		}
		if diff := cmp.Diff(all, s.files(t)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestHostileVolumesTouchNothingOutside(t *testing.T) {
	for name, archive := range map[string][]byte{
		"through a link":        pack(t, file("up/secret", "evil")),
		"through an absolute":   pack(t, file("abs/secret", "evil")),
		"out of the directory":  pack(t, file("../secret", "evil")),
		"a hard link to a file": pack(t, link(tar.TypeLink, "hard", "file"), file("hard", "evil")),
		"a device":              pack(t, item{tar.Header{Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""}),
	} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			before := s.outside(t)
			err := s.putBackInto(t, true, archive)
			if after := s.outside(t); after != before {
				t.Errorf("something outside has changed (%v):\n%s\n%s", err, before, after)
			}
		})
	}
	t.Run("a volume that is a link", func(t *testing.T) {
		s := newSandbox(t)
		if err := os.RemoveAll(s.root); err != nil {
			t.Fatal(err)
		}
		before := s.outside(t)
		if err := os.Symlink(s.dir, s.root); err != nil {
			t.Fatal(err)
		}
		if err := s.putBackInto(t, false, pack(t, file("secret", "evil"))); err == nil {
			t.Error("it was followed")
		}
		if err := os.Remove(s.root); err != nil {
			t.Fatal(err)
		}
		if after := s.outside(t); after != before {
			t.Errorf("something outside has changed:\n%s\n%s", before, after)
		}
	})
}

func TestAttributesOfVolumes(t *testing.T) {
	for name, want := range map[string]struct{ volume, rootfs bool }{
		"security.selinux":       {false, false}, // another pod's label
		"security.capability":    {true, true},
		"trusted.overlay.opaque": {true, false},
		"user.overlay.opaque":    {true, false},
		"user.note":              {true, true},
	} {
		for volume, want := range map[bool]bool{true: want.volume, false: want.rootfs} {
			if got := (&tree{volume: volume}).isRestored(name); got != want {
				t.Errorf("%s, of a volume %v: %v, want %v", name, volume, got, want)
			}
		}
	}
}

func TestSharedMemoryOfASpec(t *testing.T) {
	s := &spec{}
	err := putBackVolumes(t.Context(), nil, s, []ticket.Volume{{Name: ephemeral.SharedMemory}})
	var never *incompatibleError
	if !errors.As(err, &never) {
		t.Errorf("without a mount at /dev/shm: %v", err)
	}
}
