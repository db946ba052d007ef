package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/driver/local/stage"
	"github.com/holdfast-io/holdfast/driver/local/volume"
)

// Run serves the driver until ctx ends, and then waits for the calls in progress. The
// next Run recovers from calls that a kill interrupted.
func Run(ctx context.Context, o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	store, err := volume.Open(o.DataDir, o.storeOptions())
	if err != nil {
		return err
	}
	listeners, err := listenAll(o.sockets())
	if err == nil {
		err = serve(ctx, &o, store, listeners)
	}
	return errors.Join(err, store.Close())
}

func serve(ctx context.Context, o *Options, store *volume.Store, listeners []net.Listener) error {
	logger := klog.FromContext(ctx).WithValues("driver", o.DriverName, "node", o.NodeID)
	server := grpc.NewServer(grpc.UnaryInterceptor(unaryInterceptor(logger)))
	csi.RegisterIdentityServer(server, &identity{options: o, store: store})
	controllerServer := &controller{options: o, store: store}
	switch {
	case o.serves(controllerService):
		csi.RegisterControllerServer(server, controllerServer)
		csi.RegisterGroupControllerServer(server, &groupController{options: o, store: store})
	case o.serves(publishService):
		csi.RegisterControllerServer(server, &publisher{controller: controllerServer})
	}
	if o.serves(nodeService) {
		csi.RegisterNodeServer(server, &node{options: o, stager: &stage.Stager{Store: store}})
	}

	stopFreezes, err := serveFreezes(ctx, o, store)
	if err != nil {
		return err
	}
	defer stopFreezes()
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		server.GracefulStop()
	})
	logger.Info("Driver started", "address", o.sockets(), "dataDir", o.DataDir)
	err = serveAll(server, listeners)
	if !stop() {
		<-stopped
		logger.Info("Driver stopped")
	}
	return err
}

// serveFreezes lets the controller of a shared data directory freeze volumes of this
// node. stop thaws all of them before it returns.
func serveFreezes(ctx context.Context, o *Options, store *volume.Store) (stop func(), err error) {
	if !o.Attach || !o.serves(nodeService) {
		return func() {}, nil
	}
	h, err := store.NewFreezeServer()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := h.Serve(ctx); err != nil {
			klog.FromContext(ctx).Error(err, "Volumes of this node can no longer be frozen for snapshots; restart the driver")
		}
	})
	return func() {
		cancel()
		serving.Wait()
	}, nil
}

// serveAll returns when the server is stopped or cannot serve one of the sockets.
func serveAll(server *grpc.Server, listeners []net.Listener) error {
	ended := make(chan error, len(listeners))
	for _, listener := range listeners {
		go func() {
			err := server.Serve(listener)
			if err != nil && !errors.Is(err, grpc.ErrServerStopped) { // stopped before it started
				server.Stop()
				ended <- fmt.Errorf("serving %s: %w", listener.Addr(), err)
				return
			}
			ended <- nil
		}()
	}
	var errs []error
	for range listeners {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// listenAll creates all sockets, or none.
func listenAll(paths []string) ([]net.Listener, error) {
	var all []net.Listener
	for _, path := range paths {
		listener, err := listen(path)
		if err != nil {
			for _, made := range all {
				made.Close()
			}
			return nil, err
		}
		all = append(all, listener)
	}
	return all, nil
}

// listen creates the socket. It removes one that a dead process left, and fails if
// another process serves it.
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
