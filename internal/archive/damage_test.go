package archive

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
)

// check opens an archive, verifies it, and unpacks it, which has to find the same.
func check(t *testing.T, archive []byte, options OpenOptions) error {
	t.Helper()
	a, err := open(archive, options)
	if err != nil {
		return err
	}
	verified, err := a.Verify(t.Context())
	unpacked, unpackErr := unpack(t, a)
	if kindOf(err) != kindOf(unpackErr) || err == nil && verified.Digest != unpacked.Digest {
		t.Errorf("verifying returns %+v and the error %v, and unpacking %+v and the error %v", verified, err, unpacked, unpackErr)
	}
	return err
}

// unpack unpacks an archive into a directory that is removed at once.
func unpack(t *testing.T, a *Reader) (*Verification, error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "unpack-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	return a.Unpack(t.Context(), dir, nil)
}

// kindOf names which of the errors that a caller distinguishes an error is.
func kindOf(err error) string {
	for _, kind := range []error{ErrFormat, ErrDamaged, ErrUnsupported, ErrKey, ErrIdentity, ErrLimit, ErrNoPage, ErrPredecessor} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return fmt.Sprint(err)
}

func TestEveryChangedBitIsDetected(t *testing.T) {
	t.Parallel()
	for kind, p := range protections(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			archive, _ := write(t, p.write, smallCheckpoint(t)...)
			if err := check(t, archive, p.open); err != nil {
				t.Fatal("the archive without a change:", err)
			}
			changed := bytes.Clone(archive)
			for i := range 8 * len(archive) {
				changed[i/8] ^= 1 << (i % 8)
				if check(t, changed, p.open) == nil {
					t.Errorf("bit %d of byte %d of %d may change", i%8, i/8, len(archive))
				}
				changed[i/8] ^= 1 << (i % 8)
			}
			t.Logf("%d bits", 8*len(archive))
		})
	}
}

func TestEveryTruncationIsDetected(t *testing.T) {
	t.Parallel()
	for kind, p := range protections(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			archive, _ := write(t, p.write, smallCheckpoint(t)...)
			for n := range archive {
				if check(t, archive[:n], p.open) == nil {
					t.Errorf("the first %d of %d bytes pass", n, len(archive))
				}
				if check(t, archive[len(archive)-n:], p.open) == nil {
					t.Errorf("the last %d of %d bytes pass", n, len(archive))
				}
			}
			if check(t, append(bytes.Clone(archive), 0), p.open) == nil {
				t.Error("the archive passes with a byte appended")
			}
			if check(t, append(bytes.Clone(archive), archive...), p.open) == nil {
				t.Error("two archives pass as one")
			}
		})
	}
}

// A page that was changed is not returned, though nothing but its frame is read.
func TestChangedPageIsNotReturned(t *testing.T) {
	t.Parallel()
	for kind, p := range protections(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			archive, _ := write(t, p.write, smallCheckpoint(t)...)
			a := mustOpen(t, archive, p.open)
			frame := a.contents.frames[a.contents.byName["checkpoint/pages-1.img"].first]
			for i := range frame.stored {
				changed := bytes.Clone(archive)
				changed[a.frames+frame.offset+int64(i)] ^= 0x10
				got := make([]byte, defaultPageSize)
				if err := mustOpen(t, changed, p.open).ReadPage(AddressSpace{ID: 1}, 0x400000, got); err == nil {
					t.Errorf("byte %d of the frame may change", i)
				}
			}
		})
	}
}

// Whoever can write to the store, but does not have the key, cannot put an archive together
// from parts of others, also not of one with the same data key and the same files.
func TestFramesOfOtherArchivesAreDetected(t *testing.T) {
	t.Parallel()
	key := testKey(t, 7)
	options := OpenOptions{Secrets: Secrets{Keys: []Key{*key}}}
	contents := []content{{"a", randomPages(32)}, {"b", randomPages(33)[:32*defaultPageSize]}}
	first, _ := write(t, WriteOptions{Key: key}, contents...)
	var out bytes.Buffer
	w, err := NewWriter(&out, testHeader(), WriteOptions{Key: key, Random: seeded(2)})
	if err != nil {
		t.Fatal(err)
	}
	if err := add(w, t, contents...); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	second := out.Bytes()
	a := mustOpen(t, first, options)
	start := int(a.frames)
	frames, end := a.contents.frames, start+int(a.end.framesSize)
	cut := start + int(frames[1].offset)
	tests := map[string][]byte{
		"frames in another order":          join(first[:start], first[cut:end], first[start:cut], first[end:]),
		"one frame twice":                  join(first[:start], first[start:cut], first[start:cut], first[end:]),
		"a frame left out":                 join(first[:start], first[cut:]),
		"frames of another archive":        join(first[:start], second[start:end], first[end:]),
		"one frame of another archive":     join(first[:start], second[start:cut], first[cut:]),
		"the header of another archive":    join(second[:start], first[start:]),
		"the end of another archive":       join(first[:end], second[end:]),
		"the trailer of another archive":   join(first[:len(first)-trailerSize], second[len(second)-trailerSize:]),
		"another archive after the header": join(first[:start-digestSize], second[start-digestSize:]),
	}
	for name, archive := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if check(t, archive, options) == nil {
				t.Error("it is not detected")
			}
		})
	}
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
