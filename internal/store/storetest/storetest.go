// Package storetest has the contract that every store passes.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/internal/store"
)

// Large is a size in bytes at which a store writes an object in several parts.
const Large = 9<<20 + 7

// Run runs the contract. open returns a store in a new, empty place for each test. What
// it needs it ends with the test.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for name, test := range map[string]func(*testing.T, store.Store){
		"a check leaves nothing behind":                        checkLeavesNothing,
		"what is written is read":                              reads,
		"reads beyond the end are as io.ReaderAt says":         readsAtTheEnd,
		"a reader reads just its range":                        rangeReaders,
		"an object is not visible before it is committed":      invisibleBeforeCommit,
		"an abort leaves nothing":                              abortLeavesNothing,
		"an object is not replaced":                            notReplaced,
		"of writers at the same time one wins":                 oneWriterWins,
		"delete removes an object and nothing else":            deletes,
		"delete removes incomplete uploads":                    deletesIncomplete,
		"an upload that is deleted while it runs fails":        deletedUploadFails,
		"list has the keys that start with the prefix":         lists,
		"list ends with the error of its callback":             listStops,
		"invalid keys are refused everywhere":                  refusesInvalidKeys,
		"objects are written and read concurrently":            concurrent,
		"nothing is done when the context has ended":           endedContext,
		"an upload whose context ends is not visible":          contextEndsDuringUpload,
		"an object that does not exist is not found":           notFound,
		"an empty store lists nothing and deletes nothing":     empty,
		"a deleted key can be written again":                   writtenAgain,
		"an open object is read concurrently":                  concurrentReads,
		"an abort after a failed commit is allowed":            abortAfterCommit,
		"the sizes and times of objects are listed":            listsSizes,
		"a range that is not within the object is an error":    refusesRanges,
		"a reader that is closed early leaves the object open": closesReader,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// Data returns size bytes that look random and are the same for the same seed.
func Data(seed string, size int) []byte {
	h := fnv.New64a()
	_, _ = h.Write([]byte(seed))
	random := rand.NewChaCha8([32]byte(fmt.Appendf(nil, "%032d", h.Sum64())))
	data := make([]byte, size)
	_, _ = random.Read(data) // It returns no error.
	return data
}

// Put writes an object in writes of an odd size, and commits it.
func Put(ctx context.Context, s store.Store, key string, data []byte) error {
	w, err := s.Create(ctx, key)
	if err != nil {
		return fmt.Errorf("creating: %w", err)
	}
	if err := write(w, data); err != nil {
		return errors.Join(fmt.Errorf("writing: %w", err), w.Abort())
	}
	if err := w.Commit(); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}

// write writes data in pieces whose size divides no buffer.
func write(w io.Writer, data []byte) error {
	for piece := range slices.Chunk(data, 99_991) {
		if n, err := w.Write(piece); err != nil || n != len(piece) {
			return fmt.Errorf("%d of %d bytes: %w", n, len(piece), err)
		}
	}
	return nil
}

// Get reads an object, as a whole and in two ranges.
func Get(ctx context.Context, s store.Store, key string) ([]byte, error) {
	object, err := s.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	defer object.Close()
	var ranges [2][]byte
	half := object.Size() / 2
	for i, r := range [2]struct{ offset, length int64 }{{0, half}, {half, object.Size() - half}} {
		if ranges[i], err = readRange(object, r.offset, r.length); err != nil {
			return nil, err
		}
	}
	data := slices.Concat(ranges[0], ranges[1])
	whole := make([]byte, object.Size())
	if n, err := object.ReadAt(whole, 0); n != len(whole) || err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading at 0: %d of %d bytes: %w", n, len(whole), err)
	}
	if !bytes.Equal(data, whole) {
		return nil, errors.New("ReadAt and NewReader read different data")
	}
	return data, nil
}

func readRange(o store.Object, offset, length int64) ([]byte, error) {
	r, err := o.NewReader(offset, length)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// List returns what a store lists for a prefix, sorted: the keys of objects, and those of
// incomplete uploads with " (incomplete)".
func List(t testing.TB, s store.Store, prefix string) []string {
	t.Helper()
	var all []string
	err := s.List(t.Context(), prefix, func(i store.Info) error {
		if i.Incomplete {
			i.Key += " (incomplete)"
		}
		all = append(all, i.Key)
		return nil
	})
	if err != nil {
		t.Fatalf("listing %q: %v", prefix, err)
	}
	slices.Sort(all)
	return all
}

// WantList checks what a store lists for a prefix. want is sorted.
func WantList(t testing.TB, s store.Store, prefix string, want ...string) {
	t.Helper()
	if got := List(t, s, prefix); !slices.Equal(got, want) {
		t.Errorf("listed under %q: %q, want %q", prefix, got, want)
	}
}

// MustPut is Put that ends the test on an error.
func MustPut(t testing.TB, s store.Store, key string, data []byte) {
	t.Helper()
	if err := Put(t.Context(), s, key, data); err != nil {
		t.Fatalf("writing %s: %v", key, err)
	}
}

// WantData checks what an object contains.
func WantData(t testing.TB, s store.Store, key string, want []byte) {
	t.Helper()
	got, err := Get(t.Context(), s, key)
	if err != nil {
		t.Errorf("reading %s: %v", key, err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes, want %d: the contents differ", key, len(got), len(want))
	}
}

// WantError checks that an error wraps another one.
func WantError(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: the error is %v, want %v", what, err, want)
	}
}

// MustCreate starts to write an object and writes data, which stays uncommitted.
func MustCreate(ctx context.Context, t testing.TB, s store.Store, key string, data []byte) store.Writer {
	t.Helper()
	w, err := s.Create(ctx, key)
	if err != nil {
		t.Fatalf("creating %s: %v", key, err)
	}
	if err := write(w, data); err != nil {
		t.Fatalf("writing %s: %v", key, err)
	}
	return w
}
