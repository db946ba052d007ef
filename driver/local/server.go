package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/driver/local/stage"
	"github.com/holdfast-io/holdfast/driver/local/volume"
)

// Run serves the driver until ctx ends, then lets calls under way come to their
// end. Calls that are cut off by a kill are taken up by the next Run.
func Run(ctx context.Context, o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	store, err := volume.Open(o.DataDir, volume.Options{Capacity: o.Capacity.Value()})
	if err != nil {
		return err
	}
	listener, err := listen(o.socket())
	if err == nil {
		err = serve(ctx, &o, store, listener)
	}
	return errors.Join(err, store.Close())
}

func serve(ctx context.Context, o *Options, store *volume.Store, listener net.Listener) error {
	logger := klog.FromContext(ctx).WithValues("driver", o.DriverName, "node", o.NodeID)
	server := grpc.NewServer(grpc.UnaryInterceptor(answer(logger)))
	csi.RegisterIdentityServer(server, &identity{options: o, store: store})
	csi.RegisterControllerServer(server, &controller{options: o, store: store})
	csi.RegisterNodeServer(server, &node{options: o, stager: &stage.Stager{Store: store}})

	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		server.GracefulStop()
	})
	logger.Info("Driver started", "address", o.socket(), "dataDir", o.DataDir)
	err := server.Serve(listener)
	if !stop() {
		<-stopped
		logger.Info("Driver stopped")
	}
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) { // told to stop before it began
		return fmt.Errorf("serving %s: %w", o.socket(), err)
	}
	return nil
}

// listen makes the socket. One that a dead process left is removed, one that
// somebody answers on is not.
func listen(path string) (net.Listener, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("listening on %s: it exists and is not a socket; remove it or choose another --csi-address", path)
	default:
		if err := removeStale(path); err != nil {
			return nil, fmt.Errorf("listening on %s: %w", path, err)
		}
	}
	return net.Listen("unix", path)
}

func removeStale(path string) error {
	conn, err := net.Dial("unix", path)
	if err == nil {
		return errors.Join(errors.New("another process serves it; stop that one or choose another --csi-address"), conn.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
