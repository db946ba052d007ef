package csi

import (
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// After a restart another driver may listen on the path. A call that has found its connection
// before must not be sent there by gRPC.
func TestALostConnectionIsNotMadeAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	var calls atomic.Int32
	serve := func() *grpc.Server {
		listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
			calls.Add(1)
			return status.Error(codes.Unimplemented, "another driver")
		}))
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(server.Stop)
		return server
	}
	first := serve()
	s := newSocket(path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	c, err := s.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	first.Stop()
	s.waitUntilLost(t.Context(), c)
	serve()
	err = c.Invoke(t.Context(), "/csi.v1.Identity/Probe", &csipb.ProbeRequest{}, &csipb.ProbeResponse{})
	if status.Code(err) != codes.Unavailable || calls.Load() != 0 {
		t.Errorf("got %v, and %d calls at the other driver", err, calls.Load())
	}
}
