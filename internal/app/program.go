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
	// drainTime is how long work that has begun may go on when the program is
	// asked to stop, and stopTime how long all that then ends may take. Together
	// they are below the 30 seconds that a kubelet waits by default.
	drainTime = 20 * time.Second
	stopTime  = 25 * time.Second
)

// errLost ends a term.
var errLost = errors.New("the Lease was lost: another replica has it, or the API server was out of reach for too long")

// A Program runs the controllers of a role.
//
// It does so in terms. In each it fills caches, competes for the Lease, works,
// and, when it loses the Lease, steps down: all work ends, and only then does
// the next term begin. The process, its connection to the driver and its HTTP
// endpoint live on.
type Program struct {
	Kube     KubeOptions
	Leader   LeaderElectionOptions
	Endpoint EndpointOptions
	// LeaseName is the Lease that replicas, and other programs that do the same
	// job, compete for.
	LeaseName string
	// Component is whom events come from.
	Component string
	// Metrics are served besides those of the controllers.
	Metrics prometheus.Gatherer
	// Scheme adds API types that only this role knows; it may be nil.
	Scheme func(*runtime.Scheme) error
	// Cache narrows what a term caches; it may be nil.
	Cache func(*cache.Options)
	// Setup adds controllers to the manager of a term.
	Setup func(ctx context.Context, m ctrl.Manager, events *kube.Events) error
	// Clock learns the API server's time from its responses; it may be nil.
	Clock *kube.Clock

	config   *rest.Config
	scheme   *runtime.Scheme
	events   *kube.Events
	election *election // nil for none
	endpoint *endpoint
}

// Run works until ctx ends. What has been begun then is finished first, within
// bounds, and the Lease given back; that is a success.
func (p *Program) Run(ctx context.Context) error {
	boundGarbage()
	living, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	if err := p.prepare(living); err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go func() {
		if err := p.endpoint.serve(living); err != nil {
			fail(err)
		}
	}()
	if err := p.terms(ctx); err != nil {
		return err
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// prepare makes what outlives a term.
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
	clients, err := typedcorev1.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client for events: %w", err)
	}
	p.events = kube.NewEvents(ctx, clients, p.scheme, p.Component)
	gatherer := prometheus.Gatherers{metrics.Registry}
	if p.Metrics != nil {
		gatherer = append(gatherer, p.Metrics)
	}
	if p.endpoint, err = listen(ctx, p.Endpoint, gatherer); err != nil || !p.Leader.Enabled {
		return err
	}
	p.election, err = newElection(p.config, &p.Leader, p.LeaseName)
	if err == nil {
		p.election.recorder, p.election.watchdog = p.events, p.endpoint.watchdog
	}
	return err
}

// terms runs one term after the other until ctx ends or one fails. Once the
// program has worked, an API server that is away does not end it.
func (p *Program) terms(ctx context.Context) error {
	log := klog.FromContext(ctx)
	for first := true; ; first = false {
		t := p.newTerm(ctx)
		err := t.run(ctx)
		switch {
		case err == nil, errors.Is(err, errStuck):
			return err
		case errors.Is(err, errLost):
			log.Info("Stepped down, all work has ended; competing again", "lease", p.LeaseName, "reason", err.Error())
		case first || t.wasElected():
			return err
		default:
			log.Error(err, "A new term could not begin; trying again", "after", p.Leader.RetryPeriod)
			pause(ctx, p.Leader.RetryPeriod)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
