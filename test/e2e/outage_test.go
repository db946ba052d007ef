package e2e

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// An API server that is away for longer than a leader may keep its Lease costs
// the term and nothing else.
func TestAnAPIServerThatIsAwayIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := newWire(t, w.Config.Host)
	p := w.Provisioner(t, "--master=https://"+api.address(), "--leader-election", "--leader-election-lease-duration=3s",
		"--leader-election-renew-deadline=2s", "--leader-election-retry-period=200ms")
	w.Class(t, nil)
	w.Claim(t, "before", nil)
	w.Bound(t, "before")
	api.cut()
	says(t, p, "Stepped down")
	says(t, p, "A new term could not begin")
	w.Claim(t, "after", nil)
	api.mend()
	w.Bound(t, "after")
	alive(t, p)
	w.DropClaim(t, "before")
	w.DropClaim(t, "after")
	w.NothingLeft(t)
}

// A wire is a way to an address that can be cut.
type wire struct {
	listener net.Listener
	to       string

	mu     sync.Mutex
	broken bool
	conns  []io.Closer
}

// newWire leads to the host of a URL.
func newWire(t *testing.T, to string) *wire {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, to: target.Host}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.carry(ctx, conn) })
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); w.cut(); running.Wait() })
	return w
}

func (w *wire) address() string { return w.listener.Addr().String() }

func (w *wire) carry(ctx context.Context, from io.ReadWriteCloser) {
	defer from.Close()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", w.to)
	if err != nil {
		return
	}
	var to io.ReadWriteCloser = conn
	defer to.Close()
	w.mu.Lock()
	broken := w.broken
	w.conns = append(w.conns, from, to)
	w.mu.Unlock()
	if broken {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { _, _ = io.Copy(from, to); from.Close() })
	_, _ = io.Copy(to, from)
	to.Close()
	back.Wait()
}

// cut ends all connections, and those to come at once.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = true
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// mend lets connections through again.
func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = false
}
