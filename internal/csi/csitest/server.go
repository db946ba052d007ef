package csitest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

// server is the part of the driver that a crash ends.
type server struct {
	mu      sync.Mutex
	path    string
	grpc    *grpc.Server  // nil while the driver is down
	crashed chan struct{} // closed by a crash
	served  chan struct{} // closed when it accepts no more connections
}

// Serve runs the driver until the test ends and returns the path of its socket.
func (d *Driver) Serve(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "csi") // the path of t.TempDir may be too long for a socket
	if err != nil {
		t.Fatalf("making a directory for the socket: %v", err)
	}
	path := filepath.Join(dir, "csi.sock")
	if err := d.Listen(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Crash()
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the directory of the socket: %v", err)
		}
	})
	return path
}

// Listen serves the driver on a socket at the path until [Driver.Crash]. It
// replaces the socket of an earlier run.
func (d *Driver) Listen(path string) error {
	s := &d.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grpc != nil {
		return fmt.Errorf("listening on %s: the driver already serves %s", path, s.path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing an old socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	listener.SetUnlinkOnClose(false) // a process that dies leaves its socket file
	s.path, s.crashed, s.served = path, make(chan struct{}), make(chan struct{})
	s.grpc = grpc.NewServer(grpc.UnaryInterceptor(d.intercept(s.crashed)), grpc.WaitForHandlers(true))
	csipb.RegisterIdentityServer(s.grpc, identity{Driver: d})
	csipb.RegisterControllerServer(s.grpc, controller{Driver: d})
	csipb.RegisterGroupControllerServer(s.grpc, groupController{Driver: d})
	csipb.RegisterNodeServer(s.grpc, node{Driver: d})
	go func(running *grpc.Server, served chan struct{}) {
		defer close(served)
		_ = running.Serve(listener) // it returns only after Stop
	}(s.grpc, s.served)
	return nil
}

// Crash stops the driver as if its process had died: connections break, calls that
// are blocked or delayed do no work, and the socket file and the storage stay. It
// does nothing to a driver that is down.
func (d *Driver) Crash() {
	s := &d.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grpc == nil {
		return
	}
	close(s.crashed)
	s.grpc.Stop()
	<-s.served
	s.grpc = nil
}

// Stop stops the driver as an orderly end of its process does: it takes no new calls, and
// Stop returns when those in progress have ended. It does nothing to a driver that is down.
func (d *Driver) Stop() {
	s := &d.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grpc == nil {
		return
	}
	s.grpc.GracefulStop()
	<-s.served
	s.grpc = nil
}

// Restart serves the driver again on the socket that it had before the crash.
func (d *Driver) Restart() error {
	d.server.mu.Lock()
	path := d.server.path
	d.server.mu.Unlock()
	return d.Listen(path)
}
