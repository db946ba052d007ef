package csi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/wait"
)

// connectTimeout limits how long a process that listens on the socket may take until the
// connection is ready.
const connectTimeout = 5 * time.Second

var (
	errLost   = errors.New("the connection to the driver was lost")
	errClosed = errors.New("the connection to the driver is closed")
)

// A socket sends calls to the driver behind a Unix socket, over one connection at a time.
// Each connection has a gRPC client of its own that does not reconnect. A client that
// reconnects would send the calls that wait for it to whatever listens on the path by then,
// and after a restart that may be another driver.
type socket struct {
	path    string
	options []grpc.DialOption

	mu      sync.Mutex
	current *socketConn   // accepted for calls; nil for none
	err     error         // why there is none; nil while one is being made
	changed chan struct{} // closed when one of the two changes
	open    sync.WaitGroup
}

// A socketConn is one connection. It counts the calls in progress, so that it is closed
// after the last one: a driver that ends orderly still responds to them.
type socketConn struct {
	*grpc.ClientConn
	calls sync.WaitGroup
}

func newSocket(path string, options ...grpc.DialOption) *socket {
	return &socket{path: path, options: options, changed: make(chan struct{})}
}

var _ grpc.ClientConnInterface = &socket{}

// Invoke implements [grpc.ClientConnInterface]. It waits while a connection is being made,
// and fails as Unavailable if there is none.
func (s *socket) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if c, ok := ctx.Value(connKey{}).(*socketConn); ok {
		return c.Invoke(ctx, method, args, reply, opts...)
	}
	c, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer c.calls.Done()
	return c.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements [grpc.ClientConnInterface]. The calls of CSI that are used here have
// no streams.
func (*socket) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "streams are not supported")
}

type connKey struct{}

// over has the calls with the context use this connection, which may not be accepted yet.
func over(ctx context.Context, c *socketConn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// acquire returns the accepted connection. The caller calls c.calls.Done after its calls.
func (s *socket) acquire(ctx context.Context) (*socketConn, error) {
	for {
		s.mu.Lock()
		c, err, changed := s.current, s.err, s.changed
		if c != nil {
			c.calls.Add(1)
		}
		s.mu.Unlock()
		switch {
		case c != nil:
			return c, nil
		case err != nil:
			return nil, status.Error(codes.Unavailable, "not sent: "+err.Error())
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// set accepts a connection, or sets why there is none.
func (s *socket) set(c *socketConn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.err = c, err
	close(s.changed)
	s.changed = make(chan struct{})
}

// whileCurrent calls do if the connection is still the accepted one. It is not replaced
// meanwhile.
func (s *socket) whileCurrent(c *socketConn, do func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != c {
		return status.Error(codes.Unavailable, errLost.Error())
	}
	do()
	return nil
}

// run keeps a connection until ctx ends. No call is sent over a connection before accept
// has returned nil for it. failed is called with each error of a series.
func (s *socket) run(ctx context.Context, accept func(context.Context, *socketConn) error, failed func(error)) {
	defer s.open.Wait()
	defer s.set(nil, errClosed)
	pauses := newPauses()
	for ctx.Err() == nil {
		c, err := s.connect(ctx)
		if err == nil {
			if err = accept(ctx, c); err == nil {
				pauses = newPauses()
				s.set(c, nil)
				s.waitUntilLost(ctx, c)
				s.set(nil, nil) // Calls wait for the next attempt: the driver may only have restarted.
			}
			s.closeLater(ctx, c)
		}
		if err == nil {
			continue
		}
		s.set(nil, err)
		failed(err)
		select {
		case <-ctx.Done():
		case <-time.After(pauses.Step()):
		}
	}
}

// newPauses returns the pauses between attempts to connect.
func newPauses() *wait.Backoff {
	return &wait.Backoff{Duration: 50 * time.Millisecond, Factor: 1.6, Jitter: 0.2, Steps: 8, Cap: retryInterval}
}

// connect makes a connection and waits until it is ready.
func (s *socket) connect(ctx context.Context) (*socketConn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "unix", s.path)
	if err != nil {
		return nil, fmt.Errorf("connecting to the driver: %w", err)
	}
	var used atomic.Bool
	conn, err := grpc.NewClient("passthrough:///"+s.path, append(s.options[:len(s.options):len(s.options)],
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errLost
			}
			return raw, nil
		}))...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("preparing the connection to the driver: %w", err), raw.Close())
	}
	if err := waitUntilReady(ctx, conn); err != nil {
		_ = raw.Close() // It is closed already if gRPC has got it.
		return nil, errors.Join(fmt.Errorf("connecting to the driver: dial unix %s: %w", s.path, err), conn.Close())
	}
	return &socketConn{ClientConn: conn}, nil
}

// waitUntilReady waits until a new client is connected.
func waitUntilReady(ctx context.Context, conn *grpc.ClientConn) error {
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return errors.New("what listens there is no gRPC server, or it has just ended")
		case connectivity.Idle:
			conn.Connect()
		case connectivity.Connecting:
		}
		if !conn.WaitForStateChange(ctx, state) {
			return fmt.Errorf("what listens there does not respond: %w", ctx.Err())
		}
	}
}

// waitUntilLost returns when a connection was lost, even if nobody uses it.
func (s *socket) waitUntilLost(ctx context.Context, c *socketConn) {
	for c.GetState() == connectivity.Ready && c.WaitForStateChange(ctx, connectivity.Ready) {
	}
}

// closeLater closes a connection that is not accepted any more, once its calls have ended
// or ctx has.
func (s *socket) closeLater(ctx context.Context, c *socketConn) {
	s.open.Go(func() {
		ended := make(chan struct{})
		s.open.Go(func() {
			c.calls.Wait()
			close(ended)
		})
		select {
		case <-ended:
		case <-ctx.Done():
		}
		_ = c.Close() // The only error is that it is closed.
	})
}
