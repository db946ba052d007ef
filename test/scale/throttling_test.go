package scale

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// firstTryRejections rejects the first try of each write, as an overloaded API server
// does.
type firstTryRejections struct {
	mu    sync.Mutex
	tried map[string]int // by method, path and body
}

func (f *firstTryRejections) reject(r *http.Request) bool {
	if r.Method == http.MethodGet || strings.HasSuffix(r.URL.Path, "/events") {
		return false
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return true
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tried[r.Method+" "+r.URL.Path+" "+string(body)]++
	return f.tried[r.Method+" "+r.URL.Path+" "+string(body)] == 1
}

// A write that the API server rejects with 429 is retried after the pause in
// Retry-After. Nothing else happens: the driver is not called again, and the only
// additional requests are the retries.
func TestThrottledWritesAreRetriedOnce(t *testing.T) {
	t.Parallel()
	const n = 20
	f := &firstTryRejections{tried: map[string]int{}}
	w := world.New(t, csitest.Options{})
	s := startProvisioner(t, w)
	w.CreateClass(t, nil)
	s.waitIdle(t)
	s.counter.Reject(f.reject)

	made := s.measure(t, n, func() {
		inParallel(n, func(i int) { w.CreateClaim(t, claimName(i), nil) })
		world.Eventually(t, func(ctx context.Context) error { return checkBound(ctx, w, n) })
	})
	dropped := s.measure(t, n, func() {
		inParallel(n, func(i int) { w.DeleteClaim(t, claimName(i)) })
		w.WaitNothingLeft(t)
	})

	for what, want := range map[string]int{"POST leases": 2 * n, "POST persistentvolumes": 2 * n, "DELETE leases": 2 * n} {
		if got := made.requests[what]; got != want {
			t.Errorf("%d times %s for %d volumes, each of which was rejected once", got, what, n)
		}
	}
	for what, want := range map[string]int{"PATCH persistentvolumes": 2 * n, "DELETE persistentvolumes": 2 * n} {
		if got := dropped.requests[what]; got != want {
			t.Errorf("%d times %s for %d volumes, each of which was rejected once", got, what, n)
		}
	}
	for _, method := range []csi.Method{csi.CreateVolume, csi.DeleteVolume} {
		if got := w.Driver.Calls(method); got != n {
			t.Errorf("%s was called %d times for %d volumes", method, got, n)
		}
	}
}
