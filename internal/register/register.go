// Package register registers a CSI driver with the kubelet of its node: it serves
// the kubelet's plugin watcher on a socket in the kubelet's registration directory.
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

// Options configure which driver is registered, and where.
type Options struct {
	// Driver is the CSI driver's name.
	Driver string
	// KubeletPath is the path of the driver's socket as the kubelet sees it.
	KubeletPath string
	// Folder is the kubelet's registration directory as this process sees it.
	Folder string
	// Health configures the health endpoint.
	Health HealthOptions
}

// AddFlags declares the flags of this program.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.KubeletPath, "kubelet-registration-path", "", "path of the driver's socket on the node, as the kubelet sees it (required)")
	fs.StringVar(&o.Folder, "plugin-registration-path", "/registration", "the kubelet's registration directory, as this program sees it")
	o.Health.AddFlags(fs)
}

// Run serves the kubelet until ctx ends. If the kubelet rejects the driver it
// returns the kubelet's error, and a restart of the program tries again.
func Run(ctx context.Context, o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	socket := filepath.Join(o.Folder, o.Driver+"-reg.sock")
	// A process that was killed may have left its socket, and then Listen fails.
	for _, left := range []string{socket, o.registeredFile()} {
		if err := os.Remove(left); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing what an earlier process has left: %w", err)
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("listening in the kubelet's registration directory: %w", err)
	}
	s := &server{info: &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: o.Driver, Endpoint: o.KubeletPath, SupportedVersions: []string{"1.0.0"},
	}, file: o.registeredFile(), rejected: make(chan error, 1)}
	g := grpc.NewServer()
	registration.RegisterRegistrationServer(g, s)
	served := make(chan error, 2)
	go func() { served <- g.Serve(listener) }()
	if o.Health.Address() != "" {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() { served <- o.Health.serve(ctx, socket, o.Driver) }()
	}
	klog.FromContext(ctx).Info("Offered the driver to the kubelet", "driver", o.Driver, "socket", socket)
	select {
	case <-ctx.Done():
		g.Stop()
		return nil
	case err := <-s.rejected:
		g.GracefulStop() // The kubelet is still waiting for the response to its notification.
		return err
	case err := <-served:
		return fmt.Errorf("serving the registration: %w", err)
	}
}

func (o *Options) validate() error {
	if !filepath.IsAbs(o.KubeletPath) {
		return fmt.Errorf("--kubelet-registration-path %q: give the absolute path of the driver's socket on the node", o.KubeletPath)
	}
	return o.Health.validate()
}

// registeredFile is the file that tells [Probe] that the kubelet has registered the driver.
// It is where upstream's node-driver-registrar has it.
func (o *Options) registeredFile() string {
	return filepath.Join(filepath.Dir(o.KubeletPath), "registration")
}

// Probe returns an error unless the kubelet has registered the driver. It is for an exec
// probe, and needs the directory of --kubelet-registration-path mounted under its own path.
func Probe(o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	if _, err := os.Stat(o.registeredFile()); err != nil {
		return fmt.Errorf("the kubelet has not registered the driver: %w", err)
	}
	return nil
}

// A server implements the kubelet's registration API.
type server struct {
	registration.UnimplementedRegistrationServer
	info     *registration.PluginInfo
	file     string // is written when the kubelet has registered the driver
	rejected chan error
}

// GetInfo returns the driver's name and socket to the kubelet.
func (s *server) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return s.info, nil
}

// NotifyRegistrationStatus receives whether the kubelet has registered the
// driver.
func (s *server) NotifyRegistrationStatus(ctx context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if status.PluginRegistered {
		klog.FromContext(ctx).Info("The kubelet registered the driver", "driver", s.info.Name)
		if err := os.WriteFile(s.file, nil, 0o600); err != nil {
			klog.FromContext(ctx).V(2).Info("--mode=kubelet-registration-probe will not see the registration: "+
				"the directory of --kubelet-registration-path is not mounted here", "err", err)
		}
		return &registration.RegistrationStatusResponse{}, nil
	}
	select {
	case s.rejected <- fmt.Errorf("the kubelet rejected driver %s: %s", s.info.Name, status.Error):
	default: // An earlier rejection is already being handled.
	}
	return &registration.RegistrationStatusResponse{}, nil
}
