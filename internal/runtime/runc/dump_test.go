package runc

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

// A file of several parts is read from its beginning to its end, and given back meanwhile.
func TestPartsReader(t *testing.T) {
	dir := t.TempDir()
	a, b := bytes.Repeat([]byte("abcdefgh"), 3<<20), bytes.Repeat([]byte("ABCDEFGH"), 1<<20)
	must(t, os.WriteFile(filepath.Join(dir, "a"), a, 0o600), os.WriteFile(filepath.Join(dir, "b"), b, 0o600))
	small := []part{{"a", 0, 5}, {"b", 3, 100}, {"a", 5, 10}, {"b", 0, 0}}
	if err := iotest.TestReader(&partsReader{dir: dir, parts: small}, bytes.Join([][]byte{a[:5], b[3:103], a[5:15]}, nil)); err != nil {
		t.Error(err)
	}
	parts := []part{{"a", 0, 5}, {"b", 3, 4 << 20}, {"a", 5, 20 << 20}}
	want := bytes.Join([][]byte{a[:5], b[3 : 3+4<<20], a[5 : 5+20<<20]}, nil)
	before := blocks(t, filepath.Join(dir, "a"))
	r := &partsReader{dir: dir, parts: parts, consume: true}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v; want %d", len(got), err, len(want))
	}
	must(t, r.Close())
	if after := blocks(t, filepath.Join(dir, "a")); after > before/2 {
		t.Errorf("what was read was not given back: %d blocks of %d are left", after, before)
	}
}

func blocks(t *testing.T, name string) int64 {
	t.Helper()
	var stat unix.Stat_t
	must(t, unix.Stat(name, &stat))
	return stat.Blocks
}

func TestPartsReaderNoticesAFileThatIsTooShort(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "a"), make([]byte, 100), 0o600))
	_, err := io.ReadAll(&partsReader{dir: dir, parts: []part{{"a", 0, 101}}})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("reading 101 bytes of 100: %v", err)
	}
}
