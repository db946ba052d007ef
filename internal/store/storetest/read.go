package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/store"
)

func reads(t *testing.T, s store.Store) {
	for _, size := range []int{0, 1, 4096, Large} {
		key := fmt.Sprint("dir/size-", size)
		MustPut(t, s, key, Data(key, size))
		WantData(t, s, key, Data(key, size))
	}
}

func mustOpen(t *testing.T, s store.Store, data []byte) store.Object {
	t.Helper()
	MustPut(t, s, "a", data)
	o, err := s.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	if o.Size() != int64(len(data)) {
		t.Errorf("the size is %d, want %d", o.Size(), len(data))
	}
	return o
}

func readsAtTheEnd(t *testing.T, s store.Store) {
	o := mustOpen(t, s, []byte("0123456789"))
	for _, tt := range []struct {
		offset int64
		length int
		want   string
		eof    bool // io.EOF is required
	}{
		{0, 4, "0123", false}, {3, 4, "3456", false}, {8, 4, "89", true}, {10, 4, "", true}, {15, 4, "", true}, {4, 0, "", false},
	} {
		p := make([]byte, tt.length)
		n, err := o.ReadAt(p, tt.offset)
		if string(p[:n]) != tt.want || tt.eof != errors.Is(err, io.EOF) || !tt.eof && err != nil {
			t.Errorf("%d bytes at %d: %q, %v, want %q", tt.length, tt.offset, p[:n], err, tt.want)
		}
	}
	if _, err := o.ReadAt(make([]byte, 1), -1); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("reading at -1: the error is %v", err)
	}
}

func rangeReaders(t *testing.T, s store.Store) {
	data := Data("a", Large)
	o := mustOpen(t, s, data)
	for _, r := range [][2]int64{{0, 0}, {0, 1}, {5, 1 << 20}, {Large - 3, 3}, {Large, 0}, {8<<20 - 1, 2}, {0, Large}} {
		got, err := readRange(o, r[0], r[1])
		if err != nil || !bytes.Equal(got, data[r[0]:r[0]+r[1]]) {
			t.Errorf("%d bytes at %d: got %d, %v", r[1], r[0], len(got), err)
		}
	}
}

func refusesRanges(t *testing.T, s store.Store) {
	o := mustOpen(t, s, []byte("0123456789"))
	for _, r := range [][2]int64{{-1, 2}, {0, -1}, {0, 11}, {10, 1}, {11, 0}, {5, 1<<63 - 1}} {
		if reader, err := o.NewReader(r[0], r[1]); err == nil {
			reader.Close()
			t.Errorf("a reader of %d bytes at %d is no error", r[1], r[0])
		}
	}
}

func closesReader(t *testing.T, s store.Store) {
	data := Data("a", 1<<20)
	o := mustOpen(t, s, data)
	r, err := o.NewReader(0, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 10)
	if _, err := io.ReadFull(r, p); err != nil || !bytes.Equal(p, data[:10]) {
		t.Errorf("the beginning: %q, %v", p, err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("closing the reader: %v", err)
	}
	if _, err := o.ReadAt(p, 100); err != nil || !bytes.Equal(p, data[100:110]) {
		t.Errorf("after the reader was closed: %q, %v", p, err)
	}
}

func concurrentReads(t *testing.T, s store.Store) {
	data := Data("a", 1<<20)
	o := mustOpen(t, s, data)
	var running sync.WaitGroup
	for i := range int64(8) {
		running.Go(func() {
			p := make([]byte, 1000)
			if _, err := o.ReadAt(p, i*99_991); err != nil || !bytes.Equal(p, data[i*99_991:][:1000]) {
				t.Errorf("1000 bytes at %d: %v", i*99_991, err)
			}
			got, err := readRange(o, i*1000, 100_000)
			if err != nil || !bytes.Equal(got, data[i*1000:][:100_000]) {
				t.Errorf("a reader at %d: %v", i*1000, err)
			}
		})
	}
	running.Wait()
}

func notFound(t *testing.T, s store.Store) {
	MustPut(t, s, "dir/object", nil)
	for _, key := range []string{"x", "dir", "dir/objec", "dir/object2", "dir/x/y"} {
		_, err := s.Open(t.Context(), key)
		WantError(t, "opening "+key, err, store.ErrNotFound)
	}
}

func empty(t *testing.T, s store.Store) {
	WantList(t, s, "")
	WantList(t, s, "a/b")
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Errorf("deleting nothing: %v", err)
	}
}

func deletes(t *testing.T, s store.Store) {
	for _, key := range []string{"a/b", "a/bc", "a/b.d", "ab", "c/d/e", "c/d/f"} {
		MustPut(t, s, key, []byte(key))
	}
	other := MustCreate(t.Context(), t, s, "a/bd", Data("bd", Large))
	for range 2 { // The second time there is nothing.
		for _, key := range []string{"a/b", "c/d/e"} {
			if err := s.Delete(t.Context(), key); err != nil {
				t.Errorf("deleting %s: %v", key, err)
			}
		}
		WantList(t, s, "", "a/b.d", "a/bc", "a/bd (incomplete)", "ab", "c/d/f")
	}
	_, err := s.Open(t.Context(), "a/b")
	WantError(t, "opening a deleted object", err, store.ErrNotFound)
	WantData(t, s, "a/bc", []byte("a/bc"))
	if err := other.Commit(); err != nil {
		t.Errorf("committing beside a deleted object: %v", err)
	}
	WantData(t, s, "a/bd", Data("bd", Large))
}

func deletesIncomplete(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context()) // What a process leaves that dies.
	for range 2 {
		MustCreate(ctx, t, s, "a/b", Data("b", Large))
	}
	cancel()
	WantList(t, s, "a/", "a/b (incomplete)", "a/b (incomplete)")
	MustPut(t, s, "a/b", []byte("b"))
	WantList(t, s, "a/", "a/b", "a/b (incomplete)", "a/b (incomplete)")
	WantData(t, s, "a/b", []byte("b"))
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Errorf("deleting: %v", err)
	}
	WantList(t, s, "")
}

func deletedUploadFails(t *testing.T, s store.Store) {
	w := MustCreate(t.Context(), t, s, "a/b", Data("b", Large))
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err == nil {
		t.Error("the commit of a deleted upload is no error")
	}
	if err := w.Abort(); err != nil {
		t.Errorf("abort: %v", err)
	}
	WantList(t, s, "")
	_, err := s.Open(t.Context(), "a/b")
	WantError(t, "opening it", err, store.ErrNotFound)
}

func lists(t *testing.T, s store.Store) {
	for _, key := range []string{"a", "ab", "b/c", "b/cd/e", "b/cd/f", "bb/c"} {
		MustPut(t, s, key, nil)
	}
	WantList(t, s, "", "a", "ab", "b/c", "b/cd/e", "b/cd/f", "bb/c")
	WantList(t, s, "a", "a", "ab")
	WantList(t, s, "ab", "ab")
	WantList(t, s, "b", "b/c", "b/cd/e", "b/cd/f", "bb/c")
	WantList(t, s, "b/", "b/c", "b/cd/e", "b/cd/f")
	WantList(t, s, "b/c", "b/c", "b/cd/e", "b/cd/f")
	WantList(t, s, "b/cd/", "b/cd/e", "b/cd/f")
	WantList(t, s, "a/")
	WantList(t, s, "x/y")
}

func listStops(t *testing.T, s store.Store) {
	for _, key := range []string{"a", "b/c", "d"} {
		MustPut(t, s, key, nil)
	}
	stop, calls := errors.New("stop"), 0
	err := s.List(t.Context(), "", func(store.Info) error { calls++; return stop })
	WantError(t, "list", err, stop)
	if calls != 1 {
		t.Errorf("the callback was called %d times, want 1", calls)
	}
}

func listsSizes(t *testing.T, s store.Store) {
	MustPut(t, s, "a", Data("a", 12_345))
	err := s.List(t.Context(), "", func(i store.Info) error {
		if i.Size != 12_345 || i.Modified.IsZero() || time.Since(i.Modified).Abs() > 24*time.Hour {
			t.Errorf("listed: %+v", i)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
