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
	api := newTCPProxy(t, w.Config.Host)
	p := w.StartProvisioner(t, "--master=https://"+api.address(), "--leader-election", "--leader-election-lease-duration=3s",
		"--leader-election-renew-deadline=2s", "--leader-election-retry-period=200ms")
	w.CreateClass(t, nil)
	w.CreateClaim(t, "before", nil)
	w.WaitBound(t, "before")
	api.disconnect()
	waitForLog(t, p, "Stepped down")
	waitForLog(t, p, "Could not start a new leadership term")
	w.CreateClaim(t, "after", nil)
	api.reconnect()
	w.WaitBound(t, "after")
	checkRunning(t, p)
	w.DeleteClaim(t, "before")
	w.DeleteClaim(t, "after")
	w.WaitNothingLeft(t)
}

// A tcpProxy is a way to an address that can be cut.
type tcpProxy struct {
	listener net.Listener
	to       string

	mu           sync.Mutex
	disconnected bool
	conns        []io.Closer
}

// newTCPProxy leads to the host of a URL.
func newTCPProxy(t *testing.T, to string) *tcpProxy {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &tcpProxy{listener: l, to: target.Host}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.forward(ctx, conn) })
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); w.disconnect(); running.Wait() })
	return w
}

func (w *tcpProxy) address() string { return w.listener.Addr().String() }

func (w *tcpProxy) forward(ctx context.Context, from io.ReadWriteCloser) {
	defer from.Close()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", w.to)
	if err != nil {
		return
	}
	var to io.ReadWriteCloser = conn
	defer to.Close()
	w.mu.Lock()
	broken := w.disconnected
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

// disconnect ends all connections, and those to come at once.
func (w *tcpProxy) disconnect() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disconnected = true
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// reconnect lets connections through again.
func (w *tcpProxy) reconnect() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disconnected = false
}
