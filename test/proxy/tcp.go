package proxy

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// A TCP proxy forwards connections to an address until it is disconnected.
type TCP struct {
	listener net.Listener
	to       string

	mu           sync.Mutex
	disconnected bool
	conns        []io.Closer
}

// NewTCP starts a proxy to the host of a URL. It ends with the test.
func NewTCP(t testing.TB, to string) *TCP {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &TCP{listener: l, to: target.Host}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { p.forward(ctx, conn) })
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); p.Disconnect(); running.Wait() })
	return p
}

// Address is where the proxy listens.
func (p *TCP) Address() string { return p.listener.Addr().String() }

// forward copies bytes both ways until one side closes its connection.
func (p *TCP) forward(ctx context.Context, from io.ReadWriteCloser) {
	defer from.Close()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.to)
	if err != nil {
		return
	}
	var to io.ReadWriteCloser = conn
	defer to.Close()
	p.mu.Lock()
	broken := p.disconnected
	p.conns = append(p.conns, from, to)
	p.mu.Unlock()
	if broken {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { _, _ = io.Copy(from, to); from.Close() })
	_, _ = io.Copy(to, from)
	to.Close()
	back.Wait()
}

// Disconnect closes all connections, and new ones at once.
func (p *TCP) Disconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disconnected = true
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// Reconnect lets new connections through again.
func (p *TCP) Reconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disconnected = false
}
