package wrapper

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A sandbox is a root file system in a directory with files beside it, which nothing may
// change.
type sandbox struct {
	dir, root string
}

func newSandbox(t *testing.T) sandbox {
	t.Helper()
	s := sandbox{dir: t.TempDir()}
	s.root = filepath.Join(s.dir, "rootfs")
	for name, text := range map[string]string{
		"secret": "secret", "outside/file": "outside", "rootfs/etc/passwd": "root", "rootfs/var/log/old": "old", "rootfs/var/log/sub/deep": "deep",
	} {
		path := filepath.Join(s.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"up": "..", "abs": s.dir, "out": "../outside", "file": "../secret"} {
		if err := os.Symlink(target, filepath.Join(s.root, name)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// outside describes everything beside the root file system.
func (s sandbox) outside(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(s.dir, func(path string, entry fs.DirEntry, err error) error {
		if path == s.root {
			return fs.SkipDir
		}
		info, infoErr := entry.Info()
		if err := errors.Join(err, infoErr); err != nil {
			return err
		}
		var contents []byte
		if info.Mode().IsRegular() {
			if contents, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		modified := info.ModTime()
		if path == s.dir {
			modified = time.Time{} // The test itself writes there.
		}
		fmt.Fprintln(&text, path, info.Mode(), modified, info.Sys().(*syscall.Stat_t).Nlink, info.Sys().(*syscall.Stat_t).Uid, string(contents))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func (s sandbox) apply(t *testing.T, archive []byte) error {
	t.Helper()
	tree, err := openTree(s.root)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.root.Close()
	_, err = tree.apply(t.Context(), bytes.NewReader(archive))
	return err
}

// An item is an entry of an archive.
type item struct {
	header tar.Header
	text   string
}

func file(name, text string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}, text}
}

func folder(name string) item {
	return item{tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}

func link(kind byte, name, target string) item {
	return item{tar.Header{Name: name, Linkname: target, Typeflag: kind, Mode: 0o777}, ""}
}

func pack(t *testing.T, items ...item) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, i := range items {
		if err := w.WriteHeader(&i.header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(i.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// cut returns an archive whose last file claims to be larger than it is.
func cut(t *testing.T, size int64) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	if err := w.WriteHeader(&tar.Header{Name: "huge", Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func TestHostileArchivesTouchNothingOutside(t *testing.T) {
	device := func(kind byte, major, minor int64) item {
		return item{tar.Header{Name: "dev", Typeflag: kind, Devmajor: major, Devminor: minor, Mode: 0o666}, ""}
	}
	tests := map[string]struct {
		archive []byte
		want    string // in the error; "" means that the archive is harmless
	}{
		"an absolute name":                           {pack(t, file("/secret", "x")), "not a relative path"},
		"a name that leads up":                       {pack(t, file("../secret", "x")), "leads out"},
		"a name that leads down and up":              {pack(t, file("etc/../../secret", "x")), "leads out"},
		"a link of the image that leads up":          {pack(t, file("up/secret", "x")), "entering the directory up"},
		"an absolute link of the image":              {pack(t, file("abs/secret", "x")), "entering the directory abs"},
		"a link of the image as a directory":         {pack(t, folder("out"), file("out/file", "x")), ""},
		"a link of the image as a file":              {pack(t, file("file", "x")), ""},
		"a link of the archive, and a file below it": {pack(t, link(tar.TypeSymlink, "a", "../outside"), file("a/file", "x")), "entering the directory a"},
		"a link of the archive, and a file over it":  {pack(t, link(tar.TypeSymlink, "a", "../secret"), file("a", "x")), ""},
		"a chain of links":                           {pack(t, link(tar.TypeSymlink, "a", "b"), link(tar.TypeSymlink, "b", ".."), file("a/secret", "x")), "entering the directory a"},
		"a hard link to a file outside":              {pack(t, link(tar.TypeLink, "a", "../secret"), file("a", "x")), "leads out"},
		"a hard link to an absolute name":            {pack(t, link(tar.TypeLink, "a", "/etc/passwd")), "not a relative path"},
		"a hard link through a link of the image":    {pack(t, link(tar.TypeLink, "a", "up/secret")), "entering the directory up"},
		"a hard link to a link":                      {pack(t, link(tar.TypeLink, "a", "file"), file("a", "x")), ""},
		"a whiteout of the parent":                   {pack(t, file("etc/.wh...", "")), "deletes what is not a file"},
		"a whiteout of the directory itself":         {pack(t, file("etc/.wh..", "")), "deletes what is not a file"},
		"a whiteout of nothing":                      {pack(t, file(".wh.", "")), "deletes what is not a file"},
		"a whiteout below a link":                    {pack(t, file("out/.wh.file", "")), ""},
		"an opaque mark below a link":                {pack(t, file("out/.wh..wh..opq", "")), "entering the directory out"},
		"a whiteout of a link":                       {pack(t, file(".wh.out", "")), ""},
		"an opaque root":                             {pack(t, file(".wh..wh..opq", "")), ""},
		"a block device":                             {pack(t, device(tar.TypeBlock, 8, 0)), "devices, are not restored"},
		"a character device":                         {pack(t, device(tar.TypeChar, 1, 3)), "devices, are not restored"},
		"a file that is larger than the disk":        {cut(t, 1<<60), "and the file system of the node has"},
		"a file that is cut off":                     {cut(t, 1<<20), "unexpected EOF"},
		"a file as the root":                         {pack(t, file(".", "")), "is a directory"},
		"a link as the root":                         {pack(t, link(tar.TypeSymlink, ".", "..")), "is a directory"},
		"an attribute of overlayfs": {pack(t, item{tar.Header{
			Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/x"},
		}, ""}), ""},
		"a name that is too long": {pack(t, file(strings.Repeat("a", 300), "x")), "file name too long"},
		"no archive":              {bytes.Repeat([]byte("x"), 2000), "invalid tar header"},
		"no compressed archive":   {append([]byte{0x1f, 0x8b}, bytes.Repeat([]byte("x"), 2000)...), "gzip"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			before := s.outside(t)
			err := s.apply(t, tt.archive)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("apply() = %v, want %q", err, tt.want)
			}
			if after := s.outside(t); after != before {
				t.Errorf("outside of the root file system there is now\n%s\nand there was\n%s", after, before)
			}
		})
	}
}

func TestHostileListsOfDeletedFilesTouchNothingOutside(t *testing.T) {
	tests := map[string]struct{ list, want string }{
		"a path that leads up":         {`["/../secret"]`, "leads out"},
		"a path through a link":        {`["/out/file", "/abs/secret"]`, ""},
		"the root":                     {`["/"]`, "root of the file system"},
		"not a list":                   {`{}`, "cannot unmarshal"},
		"cut off":                      {`["/etc`, "unexpected EOF"},
		"files that are there no more": {`["/etc/x", "/x/y"]`, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			before := s.outside(t)
			list := filepath.Join(t.TempDir(), deletedFiles)
			if err := os.WriteFile(list, []byte(tt.list), 0o600); err != nil {
				t.Fatal(err)
			}
			tree, err := openTree(s.root)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.root.Close()
			err = tree.removeDeleted(list)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("removeDeleted() = %v, want %q", err, tt.want)
			}
			if after := s.outside(t); after != before {
				t.Errorf("outside of the root file system there is now\n%s\nand there was\n%s", after, before)
			}
		})
	}
}

func TestChangesAreApplied(t *testing.T) {
	when := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	whole := file("bin/tool", "tool")
	whole.header.Mode, whole.header.Uid, whole.header.Gid, whole.header.ModTime = 0o4711, 1000, 1001, when
	whole.header.PAXRecords = map[string]string{"SCHILY.xattr.user.color": "blue", "SCHILY.xattr.strange.color": "red"}
	whole.header.Format = tar.FormatPAX
	dir := folder("var/log")
	dir.header.Mode, dir.header.ModTime, dir.header.Format = 0o1777, when, tar.FormatPAX
	plain := pack(t,
		dir, file("var/log/.wh..wh..opq", ""), file("var/log/new", "new"), folder("bin"), whole,
		link(tar.TypeLink, "bin/same", "bin/tool"), link(tar.TypeSymlink, "bin/link", "/bin/tool"),
		file("etc/.wh.passwd", ""), file("./etc/made/deep/down", "x"), item{tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600}, ""},
		item{tar.Header{Name: "up", Typeflag: tar.TypeChar, Mode: 0o600}, ""}, file(".wh..wh.plnk", ""),
	)
	for name, archive := range map[string][]byte{"plain": plain, "compressed": compress(t, plain)} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			if err := s.apply(t, archive); err != nil {
				t.Fatal(err)
			}
			s.checkApplied(t, when)
		})
	}
}

func (s sandbox) checkApplied(t *testing.T, when time.Time) {
	t.Helper()
	var all []string
	err := fs.WalkDir(os.DirFS(s.root), ".", func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	want := []string{
		".", "abs", "bin", "bin/link", "bin/same", "bin/tool", "etc", "etc/made", "etc/made/deep", "etc/made/deep/down", "file", "out", "pipe",
		"var", "var/log", "var/log/new",
	}
	if err != nil || !slices.Equal(all, want) {
		t.Errorf("the files are %q, %v, want %q", all, err, want)
	}
	var tool, same, log unix.Stat_t
	if err := errors.Join(
		unix.Lstat(filepath.Join(s.root, "bin/tool"), &tool), unix.Lstat(filepath.Join(s.root, "bin/same"), &same),
		unix.Lstat(filepath.Join(s.root, "var/log"), &log)); err != nil {
		t.Fatal(err)
	}
	if tool.Mode != unix.S_IFREG|0o4711 || tool.Uid != 1000 || tool.Gid != 1001 || tool.Mtim.Nano() != when.UnixNano() {
		t.Errorf("bin/tool has mode %o, owner %d:%d, time %v", tool.Mode, tool.Uid, tool.Gid, time.Unix(tool.Mtim.Unix()))
	}
	if tool.Ino != same.Ino {
		t.Error("bin/same is not the same file as bin/tool")
	}
	if log.Mode != unix.S_IFDIR|0o1777 || log.Mtim.Nano() != when.UnixNano() {
		t.Errorf("var/log has mode %o and time %v", log.Mode, time.Unix(log.Mtim.Unix()))
	}
	if target, err := os.Readlink(filepath.Join(s.root, "bin/link")); err != nil || target != "/bin/tool" {
		t.Errorf("bin/link leads to %q, %v", target, err)
	}
	color := make([]byte, 10)
	if n, err := unix.Lgetxattr(filepath.Join(s.root, "bin/tool"), "user.color", color); err != nil || string(color[:n]) != "blue" {
		t.Errorf("bin/tool has the color %q, %v", color[:max(n, 0)], err)
	}
}

func compress(t *testing.T, plain []byte) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := gzip.NewWriter(&buffer)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func TestAnOpaqueDirectoryKeepsWhatTheArchiveHas(t *testing.T) {
	s := newSandbox(t)
	if err := s.apply(t, pack(t, folder("var"), folder("var/log"), file("var/log/sub/new", "new"), folder("var/log/sub"), file("var/log/.wh..wh..opq", ""))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"var/log/old": false, "var/log/sub/deep": false, "var/log/sub/new": true, "etc/passwd": true} {
		if _, err := os.Stat(filepath.Join(s.root, name)); (err == nil) != want {
			t.Errorf("%s: %v, want it to exist: %v", name, err, want)
		}
	}
}

func TestApplyStops(t *testing.T) {
	s := newSandbox(t)
	tree, err := openTree(s.root)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.root.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("told to stop")
	cancel(why)
	if _, err := tree.apply(ctx, bytes.NewReader(pack(t, file("new", "x")))); !errors.Is(err, why) {
		t.Errorf("apply() = %v, want %v", err, why)
	}
	if _, err := os.Stat(filepath.Join(s.root, "new")); err == nil {
		t.Error("it has written a file")
	}
}
