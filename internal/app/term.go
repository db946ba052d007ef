package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// errStuck ends the process: work of a term goes on in spite of everything, and
// nothing else may begin beside it.
var errStuck = errors.New("work has not ended in time")

// A term is one manager's life: caches, candidacy, work.
type term struct {
	program *Program
	// stopping ends when nothing new may begin, and work when what was begun must
	// end.
	stopping, work context.Context //nolint:containedctx // They are the term.
	stop           context.CancelFunc
	quit           context.CancelCauseFunc
	elected        chan struct{}
}

func (p *Program) newTerm(ctx context.Context) *term {
	t := &term{program: p, elected: make(chan struct{})}
	t.stopping, t.stop = context.WithCancel(ctx)
	t.work, t.quit = context.WithCancelCause(context.WithoutCancel(ctx))
	return t
}

// run returns when all work of the term has ended: nil if ctx has, errLost if
// the Lease was lost, errStuck if some work has not ended after all.
func (t *term) run(ctx context.Context) error {
	defer t.quit(nil)
	defer t.stop()
	m, err := t.manager(ctx)
	if err != nil {
		return err
	}
	filled := make(chan struct{})
	standing := &standing{Manager: m, elected: t.elected, work: t.work}
	if err := t.program.Setup(t.stopping, standing, t.program.events); err != nil {
		return err
	}
	// What needs election starts when the caches are filled.
	if err := m.Add(manager.RunnableFunc(func(context.Context) error { close(filled); return nil })); err != nil {
		return err
	}
	t.program.endpoint.follow(m.GetCache())
	candidacy := t.compete(ctx, filled)
	drained := context.AfterFunc(t.stopping, func() { t.drain(drainTime) })
	defer drained()
	return t.conclude(ctx, m.Start(t.stopping), candidacy)
}

// conclude gives the Lease back, because nothing needs it any more.
func (t *term) conclude(ctx context.Context, err error, candidacy *candidacy) error {
	// The manager reports that it has not waited any longer as this.
	if errors.Is(err, context.DeadlineExceeded) {
		candidacy.end()
		return fmt.Errorf("%w: %w", errStuck, err)
	}
	t.quit(nil)
	lost := candidacy.end()
	if e := t.program.election; e != nil && t.program.Leader.Release {
		if failure := e.release(ctx); failure != nil {
			klog.FromContext(ctx).Error(failure, "Other replicas must wait until the Lease expires")
		}
	}
	if err == nil && lost && ctx.Err() == nil {
		return errLost
	}
	return err
}

// drain ends what was begun, after a while.
func (t *term) drain(after time.Duration) {
	pause(t.work, after)
	t.quit(errors.New("the program is stopping"))
}

func (t *term) wasElected() bool {
	select {
	case <-t.elected:
		return true
	default:
		return false
	}
}

// manager makes the manager of the term. Names of controllers come again in
// each term.
func (t *term) manager(ctx context.Context) (ctrl.Manager, error) {
	o := ctrl.Options{
		Scheme:                  t.program.scheme,
		Logger:                  klog.FromContext(ctx),
		Metrics:                 metricsserver.Options{BindAddress: "0"}, // See endpoint.
		HealthProbeBindAddress:  "0",
		GracefulShutdownTimeout: ptr.To(stopTime),
		Controller:              config.Controller{EnableWarmup: ptr.To(true), SkipNameValidation: ptr.To(true)},
	}
	if err := t.narrow(&o); err != nil {
		return nil, err
	}
	o.Cache.DefaultTransform = cache.TransformStripManagedFields()
	m, err := ctrl.NewManager(t.program.config, o)
	if err != nil {
		return nil, fmt.Errorf("preparing for the API server: %w", err)
	}
	return m, nil
}

// narrow has the role say what is cached. What it says of kinds that are not
// installed is left out, for the cache would not begin with it; who watches such
// a kind when it appears has to look at what matters to it.
func (t *term) narrow(o *ctrl.Options) error {
	if t.program.Cache == nil {
		return nil
	}
	t.program.Cache(&o.Cache)
	over, err := rest.HTTPClientFor(t.program.config)
	if err != nil {
		return fmt.Errorf("preparing for the API server: %w", err)
	}
	served, err := apiutil.NewDynamicRESTMapper(t.program.config, over)
	if err != nil {
		return fmt.Errorf("preparing for the API server: %w", err)
	}
	mapper := remember(served)
	o.MapperProvider = func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper, nil } // What is known need not be asked again.
	for kind := range o.Cache.ByObject {
		if _, err := apiutil.IsObjectNamespaced(kind, t.program.scheme, mapper); meta.IsNoMatchError(err) {
			delete(o.Cache.ByObject, kind)
		}
	}
	return nil
}

// A candidacy is a term's part in the election.
type candidacy struct {
	cancel context.CancelFunc
	done   chan struct{}
	lost   bool // set before done is closed
}

// compete begins to compete for the Lease when the caches are filled, and goes
// on until the candidacy is ended: the Lease covers work that is being finished.
// If it is lost the term's work ends at once. Without an election the term is
// elected unopposed.
func (t *term) compete(ctx context.Context, filled <-chan struct{}) *candidacy {
	holding, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &candidacy{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		select {
		case <-filled:
		case <-holding.Done():
			return
		}
		if t.program.election == nil {
			close(t.elected)
			return
		}
		if err := t.program.election.run(holding, func() { close(t.elected) }); err != nil {
			klog.FromContext(ctx).Error(err, "This replica takes no part in leader election")
		}
		c.lost = holding.Err() == nil
		t.quit(errLost)
		t.stop()
	}()
	return c
}

// end gives up the candidacy and tells whether the Lease was lost before.
func (c *candidacy) end() (lost bool) {
	c.cancel()
	<-c.done
	return c.lost
}
