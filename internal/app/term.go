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
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// errWorkStuck ends the process: work of a term does not end, and no other term may
// start beside it.
var errWorkStuck = errors.New("running work has not ended in time")

// A term is one leadership term: one manager that fills its caches, competes for
// the Lease and works until the Lease is lost or the program stops.
//
// controller-runtime's own leader election is not used. When the Lease is lost, its
// manager sets its graceful shutdown period to zero and returns while reconcilers
// still run, because it expects the process to exit
// (TestALostLeaseEndsAllWorkBeforeTheNextTerm). When the program stops, it cancels
// running reconcilers at once (TestRunningWorkEndsBeforeTheLeaseIsReleased).
type term struct {
	program *Program
	// startCtx ends when no new work may start.
	startCtx  context.Context //nolint:containedctx // The term owns it.
	stopStart context.CancelFunc
	// drainCtx ends when running work must end.
	drainCtx   context.Context //nolint:containedctx // The term owns it.
	cancelWork context.CancelCauseFunc
	elected    chan struct{}
}

func (p *Program) newTerm(ctx context.Context) *term {
	t := &term{program: p, elected: make(chan struct{})}
	t.startCtx, t.stopStart = context.WithCancel(ctx)
	t.drainCtx, t.cancelWork = context.WithCancelCause(context.WithoutCancel(ctx))
	return t
}

// run returns when all work of the term has ended: nil if ctx has ended,
// errLeaseLost if the Lease was lost. If work does not end it returns
// errWorkStuck.
func (t *term) run(ctx context.Context) error {
	defer t.cancelWork(nil)
	defer t.stopStart()
	m, err := t.newManager(ctx)
	if err != nil {
		return err
	}
	if err := t.program.Setup(t.startCtx, &gatedManager{Manager: m, elected: t.elected}, t.program.events); err != nil {
		return err
	}
	// A manager starts runnables that need leader election after it has filled
	// the caches that Setup asks for. This one is not gated.
	synced := make(chan struct{})
	started := func(ctx context.Context) error {
		close(synced)
		if err := releaseProgramPages(); err != nil {
			klog.FromContext(ctx).Error(err, "Some memory is not given back")
		}
		return nil
	}
	if err := m.Add(manager.RunnableFunc(started)); err != nil {
		return err
	}
	t.program.endpoint.setCache(m.GetCache())
	loop := t.startLeaseLoop(ctx, synced)
	stopDrain := context.AfterFunc(t.startCtx, func() { t.drain(drainTimeout) })
	defer stopDrain()
	return t.end(ctx, t.runManager(m, synced), loop)
}

// runManager starts the manager and returns when it has stopped.
//
// It does not wait for a manager that is stopped while its caches are not synced.
// Such a manager never returns: its runnableGroup.Start loops until the caches are
// synced (controller-runtime pull request 3440,
// TestAReplicaWithoutCachesDoesNotCompete). No work has started, and the process
// exits.
func (t *term) runManager(m ctrl.Manager, synced <-chan struct{}) error {
	stopped := make(chan error, 1)
	go func() { stopped <- m.Start(t.startCtx) }()
	select {
	case err := <-stopped:
		return err
	case <-synced:
		return <-stopped
	case <-t.startCtx.Done():
	}
	select {
	case <-synced: // select chooses at random if both are closed.
		return <-stopped
	default:
		return nil
	}
}

// end ends the term after the manager has returned err. It releases the Lease,
// unless work still runs.
func (t *term) end(ctx context.Context, err error, loop *leaseLoop) error {
	// The manager returns this error if runnables outlive its graceful shutdown
	// period.
	if errors.Is(err, context.DeadlineExceeded) {
		loop.stop()
		return fmt.Errorf("%w: %w", errWorkStuck, err)
	}
	t.cancelWork(nil)
	lost := loop.stop()
	if c := t.program.candidate; c != nil && t.program.Leader.Release {
		if releaseErr := c.release(ctx); releaseErr != nil {
			klog.FromContext(ctx).Error(releaseErr, "Could not release the Lease; other replicas wait until it expires")
		}
	}
	if err == nil && lost && ctx.Err() == nil {
		return errLeaseLost
	}
	return err
}

// drain cancels running work after the timeout.
func (t *term) drain(timeout time.Duration) {
	sleep(t.drainCtx, timeout)
	t.cancelWork(errors.New("the program is stopping"))
}

func (t *term) wasElected() bool {
	select {
	case <-t.elected:
		return true
	default:
		return false
	}
}

// newManager returns the manager of the term. Every term adds controllers of the
// same names, so their validation is off. Warmup fills the caches and queues of a
// standby.
func (t *term) newManager(ctx context.Context) (ctrl.Manager, error) {
	o := ctrl.Options{
		Scheme:                  t.program.scheme,
		Logger:                  klog.FromContext(ctx),
		Metrics:                 metricsserver.Options{BindAddress: "0"}, // See endpoint.
		HealthProbeBindAddress:  "0",
		GracefulShutdownTimeout: ptr.To(stopTimeout),
		Controller:              config.Controller{EnableWarmup: ptr.To(true), SkipNameValidation: ptr.To(true)},
		BaseContext:             func() context.Context { return kube.WithDrainContext(context.Background(), t.drainCtx) },
	}
	if err := t.setCacheOptions(&o); err != nil {
		return nil, err
	}
	o.Cache.DefaultTransform = kube.StripMetadata
	m, err := ctrl.NewManager(t.program.config, o)
	if err != nil {
		return nil, fmt.Errorf("creating the manager: %w", err)
	}
	return m, nil
}

// setCacheOptions applies the role's cache options. It leaves out kinds that are not
// installed, because a cache with options for such a kind does not start. A
// controller that watches such a kind once it is installed must filter its objects
// itself.
func (t *term) setCacheOptions(o *ctrl.Options) error {
	if t.program.Cache == nil {
		return nil
	}
	t.program.Cache(&o.Cache)
	httpClient, err := rest.HTTPClientFor(t.program.config)
	if err != nil {
		return fmt.Errorf("creating the HTTP client of the API server: %w", err)
	}
	dynamic, err := apiutil.NewDynamicRESTMapper(t.program.config, httpClient)
	if err != nil {
		return fmt.Errorf("creating the REST mapper: %w", err)
	}
	mapper := newCachingMapper(dynamic)
	// The manager shares the mapper and what it has discovered.
	o.MapperProvider = func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper, nil }
	for kind := range o.Cache.ByObject {
		if _, err := apiutil.IsObjectNamespaced(kind, t.program.scheme, mapper); meta.IsNoMatchError(err) {
			delete(o.Cache.ByObject, kind)
		}
	}
	return nil
}

// A leaseLoop acquires and renews the Lease for one term.
type leaseLoop struct {
	cancel context.CancelFunc
	done   chan struct{}
	lost   bool // set before done is closed
}

// startLeaseLoop competes for the Lease once the caches are synced: a replica that
// cannot read its objects must not become leader (TestAReplicaWithoutCachesDoesNotCompete).
// The loop does not end with ctx but when it is stopped, because the Lease covers
// work that is being finished. If the Lease is lost, it cancels the term's work.
// Without leader election the term is elected at once.
func (t *term) startLeaseLoop(ctx context.Context, synced <-chan struct{}) *leaseLoop {
	loopCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &leaseLoop{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		select {
		case <-synced:
		case <-loopCtx.Done():
			return
		}
		if t.program.candidate == nil {
			close(t.elected)
			return
		}
		if err := t.program.candidate.lead(loopCtx, func() { close(t.elected) }); err != nil {
			klog.FromContext(ctx).Error(err, "Leader election failed")
		}
		l.lost = loopCtx.Err() == nil
		t.cancelWork(errLeaseLost)
		t.stopStart()
	}()
	return l
}

// stop stops the loop and reports whether it had lost the Lease before.
func (l *leaseLoop) stop() (lost bool) {
	l.cancel()
	<-l.done
	return l.lost
}
