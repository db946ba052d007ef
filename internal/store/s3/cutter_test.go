package s3

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// A cutter forwards connections to a server, and disturbs them.
type cutter struct {
	listener net.Listener
	to       string

	// disturb is called with each piece of data on its way to the server (up) or from it.
	// It may change the data. If it returns false the connection is cut.
	disturb func(up bool, data []byte) bool

	mu    sync.Mutex
	conns []net.Conn
	cuts  atomic.Int64
}

func startCutter(t testing.TB, to string, disturb func(up bool, data []byte) bool) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, to: to, disturb: disturb}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { c.forward(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); c.cutAll(); running.Wait() })
	return c
}

func (c *cutter) address() string { return c.listener.Addr().String() }

func (c *cutter) forward(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer server.Close()
	c.mu.Lock()
	c.conns = append(c.conns, client, server)
	c.mu.Unlock()
	var both sync.WaitGroup
	for _, d := range []struct {
		up       bool
		from, to net.Conn
	}{{true, client, server}, {false, server, client}} {
		both.Go(func() {
			c.copy(d.up, d.from, d.to)
			client.Close()
			server.Close()
		})
	}
	both.Wait()
}

func (c *cutter) copy(up bool, from io.Reader, to io.Writer) {
	data := make([]byte, 64<<10)
	for {
		n, err := from.Read(data)
		if n > 0 && !c.disturb(up, data[:n]) {
			c.cuts.Add(1)
			return
		}
		if _, writeErr := to.Write(data[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

// cutAll cuts all connections.
func (c *cutter) cutAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}
