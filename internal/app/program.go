package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	// drainTimeout bounds how long running work may go on after the program is asked
	// to stop. stopTimeout bounds how long that and everything else may take to end.
	// It is below the 30 seconds that a kubelet waits by default
	// (terminationGracePeriodSeconds).
	drainTimeout = 20 * time.Second
	stopTimeout  = 25 * time.Second
)

// errLeaseLost ends a term.
var errLeaseLost = errors.New("the Lease is lost: another replica holds it, or the API server was unreachable for too long")

// A Program runs the controllers of a role.
//
// It runs them in leadership terms. A term fills its caches, competes for the Lease
// and works. When it loses the Lease it ends all its work, and only then the next
// term starts. The process, its connection to the driver and its HTTP endpoint
// outlive terms.
type Program struct {
	Kube     KubeOptions
	Leader   LeaderElectionOptions
	Endpoint EndpointOptions
	// LeaseName is the Lease that replicas compete for, and other programs that do
	// the same job.
	LeaseName string
	// Component is the source of events.
	Component string
	// Metrics are served in addition to those of the controllers.
	Metrics prometheus.Gatherer
	// Scheme registers API types of this role only; it may be nil.
	Scheme func(*runtime.Scheme) error
	// Cache restricts what a term caches; it may be nil.
	Cache func(*cache.Options)
	// Setup adds controllers to the manager of a term.
	Setup func(ctx context.Context, m ctrl.Manager, events *kube.Events) error
	// Clock reads the API server's time from its responses; it may be nil.
	Clock *kube.Clock
	// MaxGarbage is how many bytes of garbage may accumulate in memory; 0 for the default.
	MaxGarbage uint64

	config    *rest.Config
	scheme    *runtime.Scheme
	events    *kube.Events
	candidate *candidate // nil without leader election
	endpoint  *endpoint
}

// Run runs the controllers until ctx ends. It then finishes running work, within
// bounds, releases the Lease and returns nil.
func (p *Program) Run(ctx context.Context) error {
	LimitGarbage(p.MaxGarbage)
	processCtx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	if err := p.prepare(processCtx); err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go func() {
		if err := p.endpoint.serve(processCtx); err != nil {
			fail(err)
		}
	}()
	if err := p.runTerms(ctx); err != nil {
		return err
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// prepare creates everything that outlives a term.
func (p *Program) prepare(ctx context.Context) (err error) {
	if p.config, err = p.Kube.Config(); err != nil {
		return err
	}
	if p.Clock != nil {
		p.config.Wrap(p.Clock.Wrap)
	}
	if p.scheme, err = newScheme(p.Scheme); err != nil {
		return err
	}
	config := rest.CopyConfig(p.config)
	config.ContentType = runtime.ContentTypeProtobuf
	eventsClient, err := typedcorev1.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("creating a client for events: %w", err)
	}
	p.events = kube.NewEvents(ctx, eventsClient, p.scheme, p.Component)
	gatherer := prometheus.Gatherers{metrics.Registry}
	if p.Metrics != nil {
		gatherer = append(gatherer, p.Metrics)
	}
	if p.endpoint, err = listen(ctx, p.Endpoint, gatherer); err != nil {
		return err
	}
	return p.prepareElection(ctx)
}

// runTerms runs one term after another until ctx ends. An error of the first term,
// or of one that was elected, ends the program. A later term that cannot start is
// retried, because the API server may be unreachable for a while.
func (p *Program) runTerms(ctx context.Context) error {
	log := klog.FromContext(ctx)
	for first := true; ; first = false {
		t := p.newTerm(ctx)
		err := t.run(ctx)
		switch {
		case err == nil, errors.Is(err, errWorkStuck):
			return err
		case errors.Is(err, errLeaseLost):
			log.Info("Stepped down: all work has ended; competing for the Lease again", "lease", p.LeaseName, "reason", err.Error())
		case first || t.wasElected():
			return err
		default:
			log.Error(err, "Could not start a new leadership term; retrying", "after", p.Leader.RetryPeriod)
			sleep(ctx, p.Leader.RetryPeriod)
		}
	}
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
