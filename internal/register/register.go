// Package register makes a CSI driver known to the kubelet of its node: it
// answers the kubelet's plugin watcher on a socket in its registration folder.
// See "Plugin registration" in the CSI node-driver-registrar's documentation
// and k8s.io/kubelet/pkg/apis/pluginregistration/v1.
package register

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Options say who is registered, and where.
type Options struct {
	// Driver is the CSI driver's name.
	Driver string
	// KubeletPath is the driver's socket as the kubelet sees it.
	KubeletPath string
	// Folder is the kubelet's registration folder as this process sees it.
	Folder string
}

// AddFlags declares the options' flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.KubeletPath, "kubelet-registration-path", "", "path of the driver's socket on the node, as the kubelet sees it (required)")
	fs.StringVar(&o.Folder, "plugin-registration-path", "/registration", "the kubelet's registration folder, as this program sees it")
}

// Run answers the kubelet until ctx ends, or returns why the kubelet refused
// the driver: a restart then tries again.
func Run(ctx context.Context, o Options) error {
	if !filepath.IsAbs(o.KubeletPath) {
		return fmt.Errorf("--kubelet-registration-path %q: give the absolute path of the driver's socket on the node", o.KubeletPath)
	}
	socket := filepath.Join(o.Folder, o.Driver+"-reg.sock")
	// A socket that a killed predecessor left would be in the way.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing an old registration socket: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("listening in the kubelet's registration folder: %w", err)
	}
	s := &server{info: &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: o.Driver, Endpoint: o.KubeletPath, SupportedVersions: []string{"1.0.0"},
	}, rejected: make(chan error, 1)}
	g := grpc.NewServer()
	registration.RegisterRegistrationServer(g, s)
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener) }()
	klog.FromContext(ctx).Info("Offered the driver to the kubelet", "driver", o.Driver, "socket", socket)
	select {
	case <-ctx.Done():
		g.Stop()
		return nil
	case err := <-s.rejected:
		g.GracefulStop() // The kubelet is still waiting for the answer to its notice.
		return err
	case err := <-served:
		return fmt.Errorf("serving the registration: %w", err)
	}
}

// server answers the kubelet.
type server struct {
	registration.UnimplementedRegistrationServer
	info     *registration.PluginInfo
	rejected chan error
}

// GetInfo tells the kubelet what the driver is and where.
func (s *server) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return s.info, nil
}

// NotifyRegistrationStatus takes the kubelet's word on whether it works with
// the driver.
func (s *server) NotifyRegistrationStatus(ctx context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if status.PluginRegistered {
		klog.FromContext(ctx).Info("The kubelet registered the driver", "driver", s.info.Name)
		return &registration.RegistrationStatusResponse{}, nil
	}
	select {
	case s.rejected <- fmt.Errorf("the kubelet does not register driver %s: %s", s.info.Name, status.Error):
	default: // Said already.
	}
	return &registration.RegistrationStatusResponse{}, nil
}
