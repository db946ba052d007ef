package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	ctrl "sigs.k8s.io/controller-runtime"
)

// endpoint serves metrics and health for as long as a manager runs, on
// standbys too.
type endpoint struct {
	server   *http.Server
	listener net.Listener
}

// Serve adds the HTTP endpoint to a manager. The address is bound at once, so
// that one that cannot be had is an error of the start.
//
//	METRICS-PATH              metrics
//	/healthz                  200 while the process runs
//	/healthz/leader-election  200 while the process runs: it ends when it loses its Lease
//	/readyz                   200 when the caches are filled
func Serve(ctx context.Context, m ctrl.Manager, o Endpoint, gatherer prometheus.Gatherer) error {
	if o.Address == "" {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Address)
	if err != nil {
		return fmt.Errorf("opening --http-endpoint: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle(o.MetricsPath, promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", fine)
	mux.HandleFunc("/healthz/leader-election", fine)
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		now, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if !m.GetCache().WaitForCacheSync(now) {
			http.Error(w, "the caches are not filled yet", http.StatusServiceUnavailable)
			return
		}
		fine(w, r)
	})
	return m.Add(&endpoint{listener: listener, server: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}})
}

func fine(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("ok")) // Whoever asked and left needs no answer.
}

// Start serves until ctx ends.
func (e *endpoint) Start(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { e.server.Close() })
	defer stop()
	if err := e.server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving HTTP: %w", err)
	}
	return nil
}

// NeedLeaderElection is false: standbys have metrics too.
func (e *endpoint) NeedLeaderElection() bool { return false }
