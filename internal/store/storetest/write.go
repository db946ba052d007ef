package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/internal/store"
)

func checkLeavesNothing(t *testing.T, s store.Store) {
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("check: %v", err)
	}
	WantList(t, s, "")
	MustPut(t, s, "a", nil)
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("second check: %v", err)
	}
	WantList(t, s, "", "a")
}

func invisibleBeforeCommit(t *testing.T, s store.Store) {
	w := MustCreate(t.Context(), t, s, "a/b", Data("b", Large))
	_, err := s.Open(t.Context(), "a/b")
	WantError(t, "opening an uncommitted object", err, store.ErrNotFound)
	WantList(t, s, "a/", "a/b (incomplete)")
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	WantList(t, s, "a/", "a/b")
	WantData(t, s, "a/b", Data("b", Large))
}

func abortLeavesNothing(t *testing.T, s store.Store) {
	for _, size := range []int{0, 1, Large} {
		if err := MustCreate(t.Context(), t, s, "a", Data("a", size)).Abort(); err != nil {
			t.Errorf("abort after %d bytes: %v", size, err)
		}
		WantList(t, s, "")
		_, err := s.Open(t.Context(), "a")
		WantError(t, "opening an aborted object", err, store.ErrNotFound)
	}
}

func abortAfterCommit(t *testing.T, s store.Store) {
	first := MustCreate(t.Context(), t, s, "a", []byte("first"))
	second := MustCreate(t.Context(), t, s, "a", []byte("second"))
	if err := first.Commit(); err != nil {
		t.Fatal(err)
	}
	WantError(t, "committing the second", second.Commit(), store.ErrExists)
	if err := second.Abort(); err != nil {
		t.Errorf("abort after a failed commit: %v", err)
	}
	WantData(t, s, "a", []byte("first"))
	WantList(t, s, "", "a")
}

func notReplaced(t *testing.T, s store.Store) {
	MustPut(t, s, "a", []byte("first"))
	WantError(t, "writing an object that exists", Put(t.Context(), s, "a", []byte("second")), store.ErrExists)
	WantError(t, "writing a large one", Put(t.Context(), s, "a", Data("a", Large)), store.ErrExists)
	WantData(t, s, "a", []byte("first"))
	WantList(t, s, "", "a")
}

func oneWriterWins(t *testing.T, s store.Store) {
	for _, size := range []int{10, Large} {
		const writers = 4
		key := fmt.Sprint("size-", size)
		var all []store.Writer
		for i := range writers {
			all = append(all, MustCreate(t.Context(), t, s, key, Data(fmt.Sprint(i), size)))
		}
		var errs [writers]error
		var running sync.WaitGroup
		for i, w := range all {
			running.Go(func() { errs[i] = w.Commit() })
		}
		running.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Errorf("writers %d and %d have both won", winner, i)
			default:
				WantError(t, "committing beside a winner", err, store.ErrExists)
			}
		}
		if winner < 0 {
			t.Fatal("no writer has won")
		}
		WantData(t, s, key, Data(fmt.Sprint(winner), size))
		WantList(t, s, key, key)
	}
}

func writtenAgain(t *testing.T, s store.Store) {
	for _, data := range []string{"first", "second"} {
		MustPut(t, s, "a/b/c", []byte(data))
		WantData(t, s, "a/b/c", []byte(data))
		if err := s.Delete(t.Context(), "a/b/c"); err != nil {
			t.Fatal(err)
		}
		WantList(t, s, "")
	}
}

func refusesInvalidKeys(t *testing.T, s store.Store) {
	for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", ".a", "a/.b", "a b", "ä", "a\n", `a\b`} {
		_, createErr := s.Create(t.Context(), key)
		_, openErr := s.Open(t.Context(), key)
		for what, err := range map[string]error{"create": createErr, "open": openErr, "delete": s.Delete(t.Context(), key)} {
			if err == nil || errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s of the invalid key %q: the error is %v", what, key, err)
			}
		}
	}
	for _, prefix := range []string{"/", "../", ".", "a//", "a b"} {
		if err := s.List(t.Context(), prefix, func(store.Info) error { return nil }); err == nil {
			t.Errorf("the invalid prefix %q is listed", prefix)
		}
	}
}

func concurrent(t *testing.T, s store.Store) {
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			key, data := fmt.Sprintf("dir-%d/object-%d", i%3, i), Data(fmt.Sprint(i), 100_000+i)
			if err := Put(t.Context(), s, key, data); err != nil {
				t.Errorf("writing %s: %v", key, err)
				return
			}
			WantData(t, s, key, data)
			if err := s.Delete(t.Context(), key); err != nil {
				t.Errorf("deleting %s: %v", key, err)
			}
		})
	}
	running.Wait()
	WantList(t, s, "")
}

func endedContext(t *testing.T, s store.Store) {
	MustPut(t, s, "a", []byte("data"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, createErr := s.Create(ctx, "b")
	_, openErr := s.Open(ctx, "a")
	WantError(t, "create", createErr, context.Canceled)
	WantError(t, "open", openErr, context.Canceled)
	WantError(t, "check", s.Check(ctx), context.Canceled)
	WantError(t, "delete", s.Delete(ctx, "a"), context.Canceled)
	WantError(t, "list", s.List(ctx, "", func(store.Info) error { return nil }), context.Canceled)
	WantList(t, s, "", "a")
}

func contextEndsDuringUpload(t *testing.T, s store.Store) {
	for _, size := range []int{10, Large} {
		ctx, cancel := context.WithCancel(t.Context())
		w := MustCreate(ctx, t, s, "a", Data("a", size))
		cancel()
		_, err := w.Write([]byte("more"))
		WantError(t, "write", err, context.Canceled)
		WantError(t, "commit", w.Commit(), context.Canceled)
		if err := w.Abort(); err != nil {
			t.Errorf("abort: %v", err)
		}
		wantNothingAfterAbort(t, s)

		ctx, cancel = context.WithCancel(t.Context())
		w = MustCreate(ctx, t, s, "a", Data("a", size))
		cancel()
		if err := w.Abort(); err != nil {
			t.Errorf("abort without commit: %v", err)
		}
		wantNothingAfterAbort(t, s)
	}
}

// wantNothingAfterAbort checks that no object is visible after its upload was aborted while a
// part of it was being sent. A server may finish that part later, and keep the upload for
// it, until the key is deleted.
func wantNothingAfterAbort(t *testing.T, s store.Store) {
	t.Helper()
	if slices.Equal(List(t, s, ""), []string{"a (incomplete)"}) {
		if err := s.Delete(t.Context(), "a"); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	WantList(t, s, "")
}
