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

// expiredTolerance is how long a Lease may be expired while this process still
// counts as its holder before it is reported as unhealthy. The program that the
// role replaces allows the same.
const expiredTolerance = 20 * time.Second

// endpoint serves metrics and health for as long as the process lives, on
// standbys and between terms too.
type endpoint struct {
	server    *http.Server
	listeners []net.Listener
	watchdog  *leaderelection.HealthzAdaptor
	caches    atomic.Pointer[cache.Cache] // of the current term
}

// listen makes the HTTP endpoint. Its addresses are bound at once, so that one
// that cannot be had is an error of the start.
//
//	METRICS-PATH              metrics
//	/healthz                  200 while the process runs
//	/healthz/leader-election  500 when the Lease is expired and this process has not noticed
//	/readyz                   200 when the caches are filled
//	/debug/pprof/             profiles, if they are asked for
func listen(ctx context.Context, o EndpointOptions, gatherer prometheus.Gatherer) (*endpoint, error) {
	e := &endpoint{watchdog: leaderelection.NewLeaderHealthzAdaptor(expiredTolerance)}
	e.server = &http.Server{Handler: e.routes(o, gatherer), ReadHeaderTimeout: 10 * time.Second}
	for _, address := range o.addresses() {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			e.close()
			return nil, fmt.Errorf("opening the address of metrics and health: %w", err)
		}
		e.listeners = append(e.listeners, listener)
	}
	return e, nil
}

func (e *endpoint) routes(o EndpointOptions, gatherer prometheus.Gatherer) http.Handler {
	own := prometheus.NewRegistry()
	mux := http.NewServeMux()
	mux.Handle(o.MetricsPath, promhttp.InstrumentMetricHandler(own,
		promhttp.HandlerFor(prometheus.Gatherers{gatherer, own}, promhttp.HandlerOpts{})))
	mux.HandleFunc("/healthz", fine)
	mux.HandleFunc("/healthz/leader-election", e.leading)
	mux.HandleFunc("/readyz", e.ready)
	if o.Profiles {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// follow has readiness tell of these caches from now on.
func (e *endpoint) follow(c cache.Cache) { e.caches.Store(&c) }

func (e *endpoint) ready(w http.ResponseWriter, r *http.Request) {
	now, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	caches := e.caches.Load()
	if caches == nil || !(*caches).WaitForCacheSync(now) {
		http.Error(w, "the caches are not filled yet", http.StatusServiceUnavailable)
		return
	}
	fine(w, r)
}

func (e *endpoint) leading(w http.ResponseWriter, r *http.Request) {
	if err := e.watchdog.Check(r); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fine(w, r)
}

func fine(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("ok")) // Whoever asked and left needs no answer.
}

func (e *endpoint) close() {
	for _, l := range e.listeners {
		l.Close()
	}
}

// serve serves until ctx ends, if there is something to be served.
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
