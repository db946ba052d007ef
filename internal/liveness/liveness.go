package liveness

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/internal/app"
)

// Options configure where the probe is answered.
type Options struct {
	// ProbeTimeout is the timeout of one Probe call.
	ProbeTimeout time.Duration
	// Endpoint is the address of health and metrics. Without it, health is on HealthPort and
	// metrics are on MetricsAddress, if there is one.
	Endpoint       string
	HealthPort     string
	MetricsAddress string
	MetricsPath    string

	healthPortFlag *pflag.Flag
}

// AddFlags declares the flags of this program.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.DurationVar(&o.ProbeTimeout, "probe-timeout", time.Second, "timeout of one call of Probe")
	fs.StringVar(&o.Endpoint, "http-endpoint", "", "address of health and metrics, such as :8080; empty for health on --health-port")
	fs.StringVar(&o.HealthPort, "health-port", "9808", "port of health, without --http-endpoint")
	fs.StringVar(&o.MetricsAddress, "metrics-address", "", "address of metrics beside --health-port; empty for none")
	fs.StringVar(&o.MetricsPath, "metrics-path", "/metrics", "HTTP path of the metrics")
	o.healthPortFlag = fs.Lookup("health-port")
}

// Validate returns all errors at once.
func (o *Options) Validate() error {
	var errs []error
	if o.Endpoint != "" && o.HealthPort != o.healthPortFlag.DefValue {
		errs = append(errs, errors.New("--http-endpoint and --health-port are both addresses of health: set only one of them"))
	}
	if o.Endpoint != "" && o.MetricsAddress != "" {
		errs = append(errs, errors.New("--http-endpoint and --metrics-address are both addresses of metrics: set only one of them"))
	}
	if o.ProbeTimeout <= 0 {
		errs = append(errs, errors.New("--probe-timeout must be positive"))
	}
	return errors.Join(errs...)
}

// A Prober is the part of a driver that is asked.
type Prober interface {
	Probe(ctx context.Context) (ready bool, err error)
}

// Run serves until ctx ends. It returns an error if an address cannot be had.
func Run(ctx context.Context, driver Prober, gatherer prometheus.Gatherer, o Options) error {
	servers, ctx := errgroup.WithContext(ctx)
	for address, handler := range o.handlers(driver, gatherer) {
		servers.Go(func() error { return app.ServeHTTP(ctx, address, handler) })
	}
	return servers.Wait()
}

// handlers returns what is served, by address.
func (o *Options) handlers(driver Prober, gatherer prometheus.Gatherer) map[string]http.Handler {
	health, metrics := &health{driver: driver, timeout: o.ProbeTimeout}, promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{})
	mux := http.NewServeMux()
	mux.Handle("/healthz", health)
	if o.Endpoint != "" {
		mux.Handle(o.MetricsPath, metrics)
		return map[string]http.Handler{o.Endpoint: mux}
	}
	all := map[string]http.Handler{net.JoinHostPort("", o.HealthPort): mux}
	if o.MetricsAddress != "" {
		separate := http.NewServeMux()
		separate.Handle(o.MetricsPath, metrics)
		all[o.MetricsAddress] = separate
	}
	return all
}

// health answers 200 if the driver is ready, and 500 with the reason if it is not.
type health struct {
	driver  Prober
	timeout time.Duration
}

// ServeHTTP calls Probe.
func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), h.timeout)
	defer cancel()
	ready, err := h.driver.Probe(ctx)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case !ready:
		http.Error(w, "the driver answers that it is not ready", http.StatusInternalServerError)
	default:
		if _, err := w.Write([]byte("ok")); err != nil {
			klog.FromContext(r.Context()).V(4).Info("The kubelet did not wait for the answer", "err", err)
		}
	}
}
