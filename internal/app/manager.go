package app

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// Connect reaches the driver and returns when it is ready. A driver that is
// not there yet is waited for.
func Connect(ctx context.Context, o Driver) (*csi.Driver, error) {
	driver, err := csi.Connect(ctx, csi.Options{Address: o.Address, Timeout: o.Timeout})
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
func (o *Kube) Config() (*rest.Config, error) {
	c, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("finding the API server (outside of a cluster give --kubeconfig): %w", err)
	}
	c.QPS, c.Burst = o.QPS, o.Burst
	if o.QPS == 0 {
		c.QPS = -1
	}
	return c, nil
}

// Manager options of a role.
type Manager struct {
	Kube   Kube
	Leader Leader
	// LeaseName is the Lease that replicas, and other programs that do the same
	// job, compete for.
	LeaseName string
	// Cache narrows what is cached.
	Cache cache.Options
}

// New makes a manager. Standbys keep their caches warm, and a leader that stops
// hands its Lease over at once.
func (o *Manager) New(ctx context.Context) (ctrl.Manager, error) {
	c, err := o.Kube.Config()
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering API types: %w", err)
	}
	if err := snapshotv1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering the snapshot API's types: %w", err)
	}
	o.Cache.DefaultTransform = cache.TransformStripManagedFields()
	m, err := ctrl.NewManager(c, ctrl.Options{
		Scheme:                        scheme,
		Logger:                        klog.FromContext(ctx),
		Cache:                         o.Cache,
		LeaderElection:                o.Leader.Enabled,
		LeaderElectionID:              o.LeaseName,
		LeaderElectionNamespace:       Namespace(o.Leader.Namespace),
		LeaderElectionLabels:          o.Leader.Labels,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &o.Leader.LeaseDuration,
		RenewDeadline:                 &o.Leader.RenewDeadline,
		RetryPeriod:                   &o.Leader.RetryPeriod,
		Metrics:                       metricsserver.Options{BindAddress: "0"}, // Served by Serve.
		HealthProbeBindAddress:        "0",
		Controller:                    config.Controller{EnableWarmup: ptr.To(true)},
	})
	if err != nil {
		return nil, fmt.Errorf("preparing for the API server: %w", err)
	}
	return m, nil
}

// Gatherer merges the metrics of the controllers with those of a driver.
func Gatherer(driver *csi.Driver) prometheus.Gatherer {
	return prometheus.Gatherers{metrics.Registry, driver.Gatherer()}
}

// SetLogger sends the logs of controllers and clients to klog's, which flags
// have set up.
func SetLogger() logr.Logger {
	log := klog.Background()
	ctrl.SetLogger(log)
	return log
}
