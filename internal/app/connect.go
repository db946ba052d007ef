package app

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// Connect reaches the driver and returns when it is ready. A driver that is
// not there yet is waited for.
func Connect(ctx context.Context, o DriverOptions) (*csi.Driver, error) {
	driver, err := csi.Connect(ctx, csi.Options{Address: o.Address, Timeout: o.Timeout, NodeOnly: o.NodePart})
	if err != nil {
		return nil, err
	}
	log := klog.FromContext(ctx)
	log.Info("Waiting for the driver", "address", o.Address)
	info, err := driver.WaitReady(ctx)
	if err != nil {
		return nil, fmt.Errorf("waiting for the driver at %s: %w", o.Address, err)
	}
	log.Info("Found the driver", "driver", info.Name, "version", info.VendorVersion)
	return driver, nil
}

// Config is how to reach the API server. Without a limit from the flags there
// is none: the server's own fairness protects it.
func (o *KubeOptions) Config() (*rest.Config, error) {
	c, err := clientcmd.BuildConfigFromFlags(o.Master, o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("finding the API server (outside of a cluster give --kubeconfig): %w", err)
	}
	c.QPS, c.Burst = o.QPS, o.Burst
	if o.QPS == 0 {
		c.QPS = -1
	}
	return c, nil
}

// SetLogger sends the logs of controllers and clients to klog's, which flags
// have set up, through filters.
func SetLogger(filters ...func(logr.Logger) logr.Logger) logr.Logger {
	log := klog.Background()
	for _, filter := range filters {
		log = filter(log)
	}
	ctrl.SetLogger(log)
	return log
}
