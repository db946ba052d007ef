package local

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/storetest"
)

func TestModes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := New(dir)
	storetest.MustPut(t, s, "c/d", nil)
	storetest.MustCreate(t.Context(), t, s, "c/e", []byte("e"))
	for path, want := range map[string]fs.FileMode{".": 0o700, "..": 0o700, "c": 0o700, "c/d": 0o600} {
		stat, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if stat.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, stat.Mode().Perm(), want)
		}
	}
	partial, err := filepath.Glob(filepath.Join(dir, "c", ".e.*.partial"))
	if err != nil || len(partial) != 1 {
		t.Fatalf("partial files: %q, %v", partial, err)
	}
	if stat, err := os.Stat(partial[0]); err != nil || stat.Mode().Perm() != 0o600 {
		t.Errorf("the partial file: %v, %v", stat.Mode(), err)
	}
}

func TestLinksDoNotLeadOut(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"dir": outside, "object": secret, "inside": "real", "partial": filepath.Join(outside, "new"),
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := New(dir)
	storetest.MustPut(t, s, "real", []byte("real"))
	for _, key := range []string{"dir/secret", "object", "inside", "partial"} {
		if data, err := storetest.Get(t.Context(), s, key); err == nil {
			t.Errorf("%s is read through a link: %q", key, data)
		}
		if err := storetest.Put(t.Context(), s, key, []byte("overwritten")); err == nil {
			t.Errorf("%s is written through a link", key)
		}
	}
	storetest.WantList(t, s, "", "real")
	if err := s.Delete(t.Context(), "dir/secret"); err == nil {
		t.Error("a delete through a link is no error")
	}
	for _, key := range []string{"object", "partial", "inside"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("deleting the link %s: %v", key, err)
		}
	}
	if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" {
		t.Errorf("the file outside: %q, %v", data, err)
	}
	wantFiles(t, outside, "secret")
	storetest.WantData(t, s, "real", []byte("real"))
}

func TestFilesOfOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := New(dir)
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".hidden", ".partial", "..partial", "with space", ".hidden.partial"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := s.Open(t.Context(), "fifo") // It would wait for a writer.
	storetest.WantError(t, "opening a FIFO", err, store.ErrInvalid)
	storetest.WantList(t, s, "")
	if err := s.Delete(t.Context(), "hidden"); err != nil {
		t.Error(err)
	}
	wantFiles(t, dir, "..partial", ".hidden", ".hidden.partial", ".partial", "fifo", "lost+found", "with space")
}

func TestNamesOfPartialFiles(t *testing.T) {
	for _, key := range []string{"a", "a/b", "a/b.c", "a.partial", "a/b.partial.partial"} {
		name := partialName(key)
		if got, partial := keyOf(name); got != key || !partial {
			t.Errorf("%s belongs to %s, %v, want %s", name, got, partial, key)
		}
		if store.ValidateKey(name) == nil {
			t.Errorf("%s is a key too", name)
		}
		if name == partialName(key) {
			t.Errorf("two uploads have the name %s", name)
		}
	}
	if _, partial := keyOf("a.partial"); partial {
		t.Error("an object is a partial file")
	}
}
