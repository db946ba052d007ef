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

// Connect connects to the driver and waits until it is ready, also if its socket
// does not exist yet.
func Connect(ctx context.Context, o DriverOptions) (*csi.Driver, error) {
	driver, err := csi.Connect(ctx, csi.Options{
		Address: o.Address, Timeout: o.Timeout, NodeOnly: o.NodePart, MinCalls: o.MinCalls, MaxCalls: o.MaxCalls,
	})
	if err != nil {
		return nil, err
	}
	log := klog.FromContext(ctx)
	log.Info("Waiting for the CSI driver to be ready", "address", o.Address)
	info, err := driver.WaitReady(ctx)
	if err != nil {
		return nil, fmt.Errorf("waiting for the driver at %s: %w", o.Address, err)
	}
	log.Info("Connected to the CSI driver", "driver", info.Name, "version", info.VendorVersion)
	return driver, nil
}

// Config returns the configuration of the API server's clients. Without
// --kube-api-qps they have no rate limit: API Priority and Fairness protects the
// server.
func (o *KubeOptions) Config() (*rest.Config, error) {
	c, err := clientcmd.BuildConfigFromFlags(o.Master, o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("configuring the API server's clients (outside of a cluster set --kubeconfig): %w", err)
	}
	c.QPS, c.Burst = o.QPS, o.Burst
	if o.QPS == 0 {
		c.QPS = -1
	}
	return c, nil
}

// SetLogger sends the logs of controller-runtime to klog, through filters, and
// returns the logger.
func SetLogger(filters ...func(logr.Logger) logr.Logger) logr.Logger {
	log := klog.Background()
	for _, filter := range filters {
		log = filter(log)
	}
	ctrl.SetLogger(log)
	return log
}
