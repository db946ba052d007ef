package s3

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/storetest"
)

func TestPartSizes(t *testing.T) {
	total := int64(0)
	for number := 1; number <= maxParts; number++ {
		chunks := chunksOfPart(number)
		if chunks < chunksOfPart(max(number-1, 1)) || chunks > maxChunks {
			t.Fatalf("part %d has %d chunks", number, chunks)
		}
		total += int64(chunks) * chunkSize
		for after, want := range map[int]float64{500: 2.4, 1500: 12.2, 10_000: 178.2} { // As the package's comment says.
			if number == after && fmt.Sprintf("%.1f", float64(total)/(1<<30)) != fmt.Sprintf("%.1f", want) {
				t.Errorf("%d parts have %.1f GiB, want %.1f", after, float64(total)/(1<<30), want)
			}
		}
	}
	if total != MaxObject {
		t.Errorf("%d parts have %d bytes, want MaxObject, %d", maxParts, total, int64(MaxObject))
	}
}

// An object that is too large is an error before a request that the server would reject.
func TestObjectThatIsTooLarge(t *testing.T) {
	f := startFake(t, func(http.ResponseWriter, *http.Request) bool { return false })
	w, err := mustNew(t, f.config(), once).Create(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	w.(*writer).number = maxParts
	w.(*writer).uploadID = "upload"
	n, err := w.Write(make([]byte, maxChunks*chunkSize+1))
	if n != maxChunks*chunkSize || err == nil {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
	wantText(t, err, "another store")
	if err := w.Commit(); err == nil {
		t.Error("the commit is no error")
	}
	if f.count("DELETE uploadId") != 1 {
		t.Error("the upload is not aborted")
	}
}

// The most requests that an operation needs. The sizes are those of one to six parts.
func TestRequestsOfAnOperation(t *testing.T) {
	object := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodHead && (r.Method != http.MethodGet || r.URL.Query().Has("uploads") || r.URL.Query().Has("versions")) {
			return false
		}
		w.Header().Set("ETag", `"etag"`)
		http.ServeContent(w, r, "", epoch, strings.NewReader("0123456789"))
		return true
	}
	nothing := func(http.ResponseWriter, *http.Request) bool { return false }
	put := func(size int) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) { storetest.MustPut(t, s, "a", make([]byte, size)) }
	}
	tests := map[string]struct {
		answer func(http.ResponseWriter, *http.Request) bool
		do     func(*testing.T, *Store)
		want   string
	}{
		"an empty object":        {nothing, put(0), "HEAD, PUT"},
		"an object of one chunk": {nothing, put(chunkSize), "HEAD, PUT"},
		"an object of two parts": {nothing, put(chunkSize + 1), "HEAD, POST uploads, PUT uploadId partNumber, PUT uploadId partNumber, POST uploadId"},
		"an upload that is aborted": {nothing, func(t *testing.T, s *Store) {
			_ = storetest.MustCreate(t.Context(), t, s, "a", make([]byte, 10)).Abort()
		}, "HEAD"},
		"reading an object": {object, func(t *testing.T, s *Store) { wantRead(t, s) }, "HEAD, GET"},
		"deleting nothing": {func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Has("versions") {
				fmt.Fprint(w, "<ListVersionsResult></ListVersionsResult>")
			}
			return r.URL.Query().Has("versions")
		}, func(t *testing.T, s *Store) {
			if err := s.Delete(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		}, "GET uploads, GET versions"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodGet && r.URL.Query().Has("uploads") {
					fmt.Fprint(w, "<ListMultipartUploadsResult></ListMultipartUploadsResult>")
					return true
				}
				return tt.answer(w, r)
			})
			tt.do(t, mustNew(t, f.config(), once))
			if got := strings.Join(f.requests, ", "); got != tt.want {
				t.Errorf("the requests are %s, want %s", got, tt.want)
			}
		})
	}
}

func wantRead(t *testing.T, s *Store) {
	t.Helper()
	o, err := s.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	r, err := o.NewReader(2, 5)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if data, err := io.ReadAll(r); err != nil || string(data) != "23456" {
		t.Errorf("read %q, %v", data, err)
	}
}

// An upload of 1 GiB needs no more memory than its chunks, and the requests of its parts.
func TestMemoryOfALargeUpload(t *testing.T) { // Not parallel: it measures the heap of the process.
	f := startFake(t, func(http.ResponseWriter, *http.Request) bool { return false })
	w, err := mustNew(t, f.config(), once).Create(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	const size, step = 1 << 30, 1 << 20
	data := make([]byte, step)
	before, most := heap(), uint64(0)
	for written := 0; written < size; written += step {
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if written%(64<<20) == 0 {
			most = max(most, heap())
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	const overhead = 8 << 20 // of connections, and of the fake
	if atOnce := chunksAtOnce(1); most > before+uint64(atOnce*chunkSize)+overhead {
		t.Errorf("the heap has grown from %d to %d MiB, by more than %d chunks of %d MiB", before>>20, most>>20, atOnce, chunkSize>>20)
	}
	if n, want := f.count(""), 3+(size+chunkSize-1)/chunkSize; n != want {
		t.Errorf("%d requests, want %d", n, want)
	}
	t.Logf("heap: %d MiB before, at most %d MiB; %d requests", before>>20, most>>20, f.count(""))
}

// heap returns the bytes that are in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

var _ store.Store = (*Store)(nil)
