package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// leaseExpiryTolerance is how long a Lease may be expired before a process that
// still believes to hold it is reported as unhealthy. Upstream's sidecars allow the
// same.
const leaseExpiryTolerance = 20 * time.Second

// optionalAddressDelay is how long other containers of the pod have time to open an address
// before this program opens it only because it is a default.
const optionalAddressDelay = 5 * time.Second

// endpoint serves metrics and health for the lifetime of the process, also on
// standbys and between leadership terms.
type endpoint struct {
	server    *http.Server
	listeners []net.Listener
	optional  []string      // addresses that are opened after the delay
	delay     time.Duration // before optional addresses are opened
	watchdog  *leaderelection.HealthzAdaptor
	caches    atomic.Pointer[cache.Cache] // of the current term
}

// listen creates the HTTP endpoint. It binds the addresses, so that the program does
// not start if one is in use that somebody has asked for.
//
//	METRICS-PATH              metrics
//	/healthz                  200 while the process runs
//	/healthz/leader-election  500 if the Lease has expired and this process has not noticed
//	/readyz                   200 when the caches are synced
//	/debug/pprof/             profiles, with --enable-pprof
func listen(ctx context.Context, o EndpointOptions, gatherer prometheus.Gatherer) (*endpoint, error) {
	e := &endpoint{delay: optionalAddressDelay, watchdog: leaderelection.NewLeaderHealthzAdaptor(leaseExpiryTolerance)}
	e.server = &http.Server{Handler: e.routes(o, gatherer), ReadHeaderTimeout: readHeaderTimeout}
	for _, a := range o.addresses() {
		if a.optional {
			e.optional = append(e.optional, a.value)
			continue
		}
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", a.value)
		if err != nil {
			e.close()
			return nil, fmt.Errorf("listening on the address for metrics and health: %w", err)
		}
		e.listeners = append(e.listeners, listener)
	}
	return e, nil
}

func (e *endpoint) routes(o EndpointOptions, gatherer prometheus.Gatherer) http.Handler {
	handlerMetrics := prometheus.NewRegistry()
	mux := http.NewServeMux()
	mux.Handle(o.MetricsPath, promhttp.InstrumentMetricHandler(handlerMetrics,
		promhttp.HandlerFor(prometheus.Gatherers{gatherer, handlerMetrics}, promhttp.HandlerOpts{})))
	mux.HandleFunc("/healthz", writeOK)
	mux.HandleFunc("/healthz/leader-election", e.serveLeaderElectionHealth)
	mux.HandleFunc("/readyz", e.serveReadiness)
	if o.Profiles {
		AddProfiles(mux)
	}
	return mux
}

// setCache makes readiness depend on the caches of a new term.
func (e *endpoint) setCache(c cache.Cache) { e.caches.Store(&c) }

func (e *endpoint) serveReadiness(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	caches := e.caches.Load()
	if caches == nil || !(*caches).WaitForCacheSync(ctx) {
		http.Error(w, "the caches are not synced yet", http.StatusServiceUnavailable)
		return
	}
	writeOK(w, r)
}

func (e *endpoint) serveLeaderElectionHealth(w http.ResponseWriter, r *http.Request) {
	if err := e.watchdog.Check(r); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeOK(w, r)
}

func writeOK(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("ok")) // An error means that the client is gone.
}

func (e *endpoint) close() {
	for _, l := range e.listeners {
		l.Close()
	}
}

// serve serves HTTP on all addresses until ctx ends. Without addresses it returns at
// once.
func (e *endpoint) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { e.server.Close() })
	defer stop()
	var all errgroup.Group
	for _, l := range e.listeners {
		all.Go(func() error { return e.serveOn(l) })
	}
	for _, address := range e.optional {
		all.Go(func() error { return e.serveOptional(ctx, address) })
	}
	return all.Wait()
}

func (e *endpoint) serveOn(l net.Listener) error {
	if err := e.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving HTTP: %w", err)
	}
	return nil
}

// serveOptional serves HTTP on an address that nobody has asked for, if nobody else has it
// when the delay is over.
func (e *endpoint) serveOptional(ctx context.Context, address string) error {
	sleep(ctx, e.delay)
	l := listenIfFree(ctx, address)
	if l == nil {
		return nil
	}
	return e.serveOn(l)
}

// listenIfFree returns nil if the address cannot be had, or ctx has ended.
func listenIfFree(ctx context.Context, address string) net.Listener {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Info("Doing without a default address of metrics and health: set --http-endpoint to one that is free", "address", address, "err", err)
	}
	return l
}
