package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/leaderelection"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// leaseExpiryTolerance is how long a Lease may be expired before a process that
// still believes to hold it is reported as unhealthy. Upstream's sidecars allow the
// same.
const leaseExpiryTolerance = 20 * time.Second

// endpoint serves metrics and health for the lifetime of the process, also on
// standbys and between leadership terms.
type endpoint struct {
	server    *http.Server
	listeners []net.Listener
	watchdog  *leaderelection.HealthzAdaptor
	caches    atomic.Pointer[cache.Cache] // of the current term
}

// listen creates the HTTP endpoint. It binds the addresses, so that the program does
// not start if one is in use.
//
//	METRICS-PATH              metrics
//	/healthz                  200 while the process runs
//	/healthz/leader-election  500 if the Lease has expired and this process has not noticed
//	/readyz                   200 when the caches are synced
//	/debug/pprof/             profiles, with --enable-pprof
func listen(ctx context.Context, o EndpointOptions, gatherer prometheus.Gatherer) (*endpoint, error) {
	e := &endpoint{watchdog: leaderelection.NewLeaderHealthzAdaptor(leaseExpiryTolerance)}
	e.server = &http.Server{Handler: e.routes(o, gatherer), ReadHeaderTimeout: 10 * time.Second}
	for _, address := range o.addresses() {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
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
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
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
		all.Go(func() error {
			if err := e.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serving HTTP: %w", err)
			}
			return nil
		})
	}
	return all.Wait()
}
