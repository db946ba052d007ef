package runc

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// archiveOf returns the entries of the archive of a writable layer: names and what they are.
func archiveOf(t *testing.T, l *layer) map[string]string {
	t.Helper()
	name := filepath.Join(t.TempDir(), rootfsDiffFile)
	if err := l.write(name); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	entries := map[string]string{}
	for archive := tar.NewReader(file); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		entries[header.Name] = fmt.Sprintf("%c %o %s%s", header.Typeflag, header.Mode, text, header.Linkname)
		if xattr := header.PAXRecords["SCHILY.xattr.user.note"]; xattr != "" {
			entries[header.Name] += " note=" + xattr
		}
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// upperDir makes the upper directory of an overlay.
func upperDir(t *testing.T) (string, *layer) {
	t.Helper()
	upper := t.TempDir()
	l, err := newLayer(rootfs{upper: upper}, t.TempDir())
	must(t, err)
	t.Cleanup(func() { l.staged.Close() })
	return upper, l
}

func TestLayerHasWhatAnOverlayHas(t *testing.T) {
	upper, l := upperDir(t)
	must(t,
		os.Mkdir(filepath.Join(upper, "dir"), 0o750),
		os.WriteFile(filepath.Join(upper, "dir/file"), []byte("text"), 0o640),
		unix.Setxattr(filepath.Join(upper, "dir/file"), "user.note", []byte("mine"), 0),
		os.Link(filepath.Join(upper, "dir/file"), filepath.Join(upper, "dir/link")),
		os.Symlink("/etc/passwd", filepath.Join(upper, "symlink")),
		unix.Mkfifo(filepath.Join(upper, "fifo"), 0o600),
		unix.Mknod(filepath.Join(upper, "deleted"), unix.S_IFCHR, 0),
		os.Mkdir(filepath.Join(upper, "replaced"), 0o755),
		unix.Setxattr(filepath.Join(upper, "replaced"), "trusted.overlay.opaque", []byte("y"), 0),
		l.scan())
	want := map[string]string{
		"dir/":                  "5 750 ",
		"dir/file":              "0 640 text note=mine",
		"dir/link":              "1 640 dir/file note=mine",
		"symlink":               "2 777 /etc/passwd",
		"fifo":                  "6 600 ",
		".wh.deleted":           "0 0 ",
		"replaced/":             "5 755 ",
		"replaced/.wh..wh..opq": "0 0 ",
	}
	if diff := cmp.Diff(want, archiveOf(t, l)); diff != "" {
		t.Error(diff)
	}
}

// What changes between the two scans is in the archive as it was at the second one.
func TestLayerIsThatOfTheSecondScan(t *testing.T) {
	upper, l := upperDir(t)
	path := func(name string) string { return filepath.Join(upper, name) }
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"same", "rewritten", "replaced", "deleted", "mapped"} {
		must(t, os.WriteFile(path(name), []byte("old "), 0o600))
	}
	must(t, l.scan())
	must(t,
		os.WriteFile(path("rewritten"), []byte("new!"), 0o600),
		os.Chtimes(path("rewritten"), old, old), // the change time cannot be set back
		os.WriteFile(path("temporary"), []byte("new!"), 0o600),
		os.Rename(path("temporary"), path("replaced")),
		os.Remove(path("deleted")),
		os.WriteFile(path("added"), []byte("new!"), 0o600),
		l.scan())
	want := map[string]string{
		"same": "0 600 old ", "rewritten": "0 600 new!", "replaced": "0 600 new!", "added": "0 600 new!", "mapped": "0 600 old ",
	}
	if diff := cmp.Diff(want, archiveOf(t, l)); diff != "" {
		t.Error(diff)
	}
}

func TestLayerReadsAgainOnlyWhatMayHaveChanged(t *testing.T) {
	upper, l := upperDir(t)
	must(t, os.WriteFile(filepath.Join(upper, "file"), make([]byte, 1000), 0o600), l.scan())
	if l.size != 1000 {
		t.Fatalf("%d bytes are staged", l.size)
	}
	if must(t, l.scan()); l.size != 2000 {
		t.Errorf("a file that had just been written was not read again: %d bytes are staged", l.size)
	}
	time.Sleep(2 * timeGranularity) // until the file is old
	must(t, l.scan(), l.scan(), l.scan())
	if l.size != 3000 {
		t.Errorf("a file that has not changed was read again: %d bytes are staged", l.size)
	}
	l.mapped = mappedFiles{paths: map[string]bool{"/file": true}}
	if must(t, l.scan()); l.size != 4000 {
		t.Errorf("a file that is mapped for writing was not read again: %d bytes are staged", l.size)
	}
}

func TestLayerRejectsWhatItCannotSave(t *testing.T) {
	upper, l := upperDir(t)
	must(t, os.Mkdir(filepath.Join(upper, "dir"), 0o755),
		unix.Setxattr(filepath.Join(upper, "dir"), "trusted.overlay.redirect", []byte("/x"), 0))
	if err := l.scan(); err == nil {
		t.Error("a directory that overlayfs takes from elsewhere was saved")
	}
}
