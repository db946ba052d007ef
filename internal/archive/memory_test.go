package archive

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
)

// A cheapMemory is a process of which one page in 16 is not zeros. It needs no memory.
type cheapMemory struct{ offset int64 }

func (m *cheapMemory) Read(b []byte) (int, error) {
	const period = 16 * defaultPageSize
	clear(b)
	for at := (period - m.offset%period) % period; at < int64(len(b)); at += period {
		b[at] = byte((m.offset+at)/period) | 1
	}
	m.offset += int64(len(b))
	return len(b), nil
}

// 4 GiB are stored in a few MiB of memory: all that is ever allocated, garbage included, is
// less than the heap may have at any time. The index grows by some bytes for each frame and
// for each run of pages.
func TestWriterNeedsConstantMemory(t *testing.T) {
	const size, most = 4 << 30, 24 << 20
	var before, after runtime.MemStats
	w, err := NewWriter(io.Discard, testHeader(), WriteOptions{Key: testKey(t, 7)})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	runtime.ReadMemStats(&before)
	if err := w.Add(t.Context(), File{Name: "checkpoint/pages-1.img", Size: size, Reader: io.LimitReader(&cheapMemory{}, size)}); err != nil {
		t.Fatal(err)
	}
	result, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if want := (PageCount{Total: size / defaultPageSize, Zero: size / defaultPageSize / 16 * 15, Stored: size / defaultPageSize / 16}); result.Pages != want {
		t.Errorf("pages are %+v, want %+v", result.Pages, want)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > most {
		t.Errorf("%d bytes were allocated, want at most %d", used, most)
	} else {
		t.Logf("%d bytes were allocated, %d stored", used, result.Stored)
	}
}

// 1 GiB is unpacked in a few MiB of memory, all garbage included.
func TestUnpackNeedsConstantMemory(t *testing.T) {
	const size, most = 1 << 30, 24 << 20
	options := OpenOptions{Secrets: Secrets{Keys: []Key{*testKey(t, 7)}}}
	var stored bytes.Buffer
	w, err := NewWriter(&stored, testHeader(), WriteOptions{Key: testKey(t, 7)})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := w.Add(t.Context(), File{Name: "checkpoint/pages-1.img", Size: size, Reader: io.LimitReader(&cheapMemory{}, size)}); err != nil {
		t.Fatal(err)
	}
	result, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	found, err := mustOpen(t, stored.Bytes(), options).Unpack(t.Context(), dir, nil)
	if err != nil || found.Digest != result.Digest {
		t.Fatalf("unpacking: %+v, error %v", found, err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > most {
		t.Errorf("%d bytes were allocated, want at most %d", used, most)
	} else {
		t.Logf("%d bytes were allocated, %d read", used, result.Stored)
	}
}

// What NewWriter itself allocates is the buffers of the pipeline.
func TestNewWriterNeedsFewBuffers(t *testing.T) {
	const most = 16 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w, err := NewWriter(io.Discard, testHeader(), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(t.Context(), File{Name: "a", Size: 16 << 20, Reader: io.LimitReader(seeded(1), 16<<20)}); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > most {
		t.Errorf("%d bytes were allocated, want at most %d", used, most)
	} else {
		t.Logf("%d bytes were allocated", used)
	}
}

var errFull = errors.New("no space left")

// A fullWriter fails after so many bytes.
type fullWriter struct{ left int }

func (w *fullWriter) Write(b []byte) (int, error) {
	if len(b) > w.left {
		return 0, errFull
	}
	w.left -= len(b)
	return len(b), nil
}

// An error of the store ends a large Add soon, and comes back from Close.
func TestWriterStopsWhenItsDestinationFails(t *testing.T) {
	t.Parallel()
	w, err := NewWriter(&fullWriter{left: 1 << 20}, testHeader(), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	source := &countingReader{r: seeded(1)}
	if err := w.Add(t.Context(), File{Name: "a", Size: 1 << 40, Reader: source}); !errors.Is(err, errFull) {
		t.Errorf("Add: error %v", err)
	}
	if source.n > 16<<20 {
		t.Errorf("Add read %d bytes after its destination was full", source.n)
	}
	if _, err := w.Close(); !errors.Is(err, errFull) {
		t.Errorf("Close: error %v", err)
	}
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

// Rejecting a frame or an index that decompresses to 64 MiB takes less memory than that.
func TestBombsTakeLittleMemory(t *testing.T) {
	const most = 16 << 20
	bombs := map[string]func(*forgery){
		"a frame": func(f *forgery) { f.bomb(64 << 20) },
		"the index": func(f *forgery) {
			f.stored = compressed(t, make([]byte, 64<<20))
			f.change = func(e *trailer) { e.indexPlain = 1 << 20 }
		},
	}
	for name, change := range bombs {
		t.Run(name, func(t *testing.T) {
			f := newForgery(t)
			change(f)
			archive := f.encode(t)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := check(t, archive, OpenOptions{}); !errors.Is(err, ErrFormat) {
				t.Errorf("got the error %v", err)
			}
			runtime.ReadMemStats(&after)
			if used := after.TotalAlloc - before.TotalAlloc; used > most {
				t.Errorf("%d bytes were allocated, want at most %d", used, most)
			}
		})
	}
}
