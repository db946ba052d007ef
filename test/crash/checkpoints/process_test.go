package checkpoints

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"k8s.io/apimachinery/pkg/api/meta"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/runtime/runtimetest"
	"github.com/holdfast-io/holdfast/test/proxy"
)

// A process is the operator or an agent. While it is not held, a killed one is followed by a
// successor.
type process struct {
	env     *environment
	role    string // for the names of points
	options func(*ctrl.Options)
	setup   func(context.Context, ctrl.Manager, *kube.Events, *life) error
	config  *rest.Config   // through the proxy
	counter *proxy.Counter // nil if nobody counts

	mu      sync.Mutex
	current *life
	held    chan struct{} // closed when a successor may start; nil if one may
}

// A life is a process from its start until it dies.
type life struct {
	process *process
	dead    atomic.Bool
	up      atomic.Bool // its caches are filled
	ctx     context.Context
	cancel  context.CancelFunc
}

// newProcess starts a process, which ends with the test.
func newProcess(t *testing.T, env *environment, p *process) *process {
	t.Helper()
	p.env = env
	server := env.Config
	if env.scenario.counts {
		p.counter = proxy.NewCounter(t, server)
		server = configOf(t, p.counter.Kubeconfig)
	}
	p.config = configOf(t, proxy.Start(t, server, p.decide))
	p.config.QPS = -1
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(ended)
		p.supervise(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		p.kill()
		<-ended
	})
	return p
}

func configOf(t *testing.T, kubeconfig string) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// supervise runs one life after another.
func (p *process) supervise(ctx context.Context) {
	for {
		p.mu.Lock()
		held := p.held
		l := &life{process: p}
		l.ctx, l.cancel = context.WithCancel(ctx)
		if held == nil {
			p.current = l
		}
		p.mu.Unlock()
		if held != nil {
			select {
			case <-held:
				continue
			case <-ctx.Done():
				return
			}
		}
		err := l.run()
		l.kill()
		if ctx.Err() != nil {
			return
		}
		p.env.trace.note("%s has ended: %v", p.role, err)
	}
}

// run returns when the life has ended, and nothing of it runs any more.
func (l *life) run() error {
	p := l.process
	// Work that runs goes on with calls that fail, instead of an end of its context, which
	// would let it clean up.
	working := kube.WithDrainContext(context.Background(), context.Background())
	o := ctrl.Options{
		Scheme: p.env.scheme, Logger: funcr.New(p.log, funcr.Options{}),
		Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		GracefulShutdownTimeout: ptr.To(time.Minute),
		Controller:              config.Controller{SkipNameValidation: ptr.To(true)},
		BaseContext:             func() context.Context { return working },
		MapperProvider:          func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return p.env.mapper, nil },
		NewClient:               p.env.newClient,
		Client:                  client.Options{Cache: &client.CacheOptions{}},
	}
	p.options(&o)
	m, err := ctrl.NewManager(p.config, o)
	if err != nil {
		return err
	}
	c, err := typedcorev1.NewForConfig(p.config)
	if err != nil {
		return err
	}
	if err := p.setup(working, m, kube.NewEvents(l.ctx, c, p.env.scheme, p.role), l); err != nil {
		return err
	}
	// A manager that is stopped before its caches are filled never returns.
	synced := make(chan struct{})
	err = m.Add(manager.RunnableFunc(func(context.Context) error {
		close(synced)
		l.up.Store(true)
		p.env.trace.note("%s is up", p.role)
		return nil
	}))
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- m.Start(l.ctx) }()
	select {
	case err := <-ended:
		return err
	case <-synced:
		return <-ended
	case <-l.ctx.Done():
		select {
		case <-synced:
			return <-ended
		default:
			return l.ctx.Err()
		}
	}
}

// log adds an error to the log of the run.
func (p *process) log(_, line string) {
	if strings.Contains(line, `"error"=`) {
		p.env.trace.log(p.role + " logs " + line)
	}
}

func (l *life) kill() {
	l.dead.Store(true)
	l.cancel()
}

// kill kills the process.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil {
		p.current.kill()
	}
}

// hold kills the process, and no successor starts until release is called.
func (p *process) hold() {
	p.mu.Lock()
	if p.held == nil {
		p.held = make(chan struct{})
	}
	p.mu.Unlock()
	p.kill()
	p.env.trace.note("%s is away", p.role)
}

func (p *process) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil {
		close(p.held)
		p.held = nil
		p.env.trace.note("%s is back", p.role)
	}
}

// isWorking reports whether the process is up, or away for now.
func (p *process) isWorking() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held != nil || p.current != nil && p.current.up.Load() && !p.current.dead.Load()
}

func (p *process) isHeld() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held != nil
}

// strike does what comes before the work at a point.
func (p *process) strike(hit *injectedFault, l *life) {
	kills := hit.before && hit.kills
	if kills && hit.disrupts && !p.isHeld() { // It is dead during the disruption.
		p.hold()
		p.env.disrupt()
		if !p.env.staysAway(p) {
			p.release()
		}
		return
	}
	if kills {
		l.kill()
	}
	if hit.disrupts {
		p.env.disrupt()
	}
}

// decide decides about a request to the API server.
func (p *process) decide(r *http.Request) proxy.Fault {
	p.mu.Lock()
	l := p.current
	p.mu.Unlock()
	if l == nil || l.dead.Load() {
		return proxy.Fault{Disconnect: true}
	}
	if proxy.IsWatch(r) && proxy.Resource(r) == "checkpoints" && p.env.scenario.staleCacheOf == p.role {
		return proxy.Fault{Delay: watchDelay}
	}
	if proxy.Resource(r) == "events" && r.Method != http.MethodGet {
		p.env.events.Add(1)
	}
	name := proxy.Name(r)
	if !proxy.IsWrite(r) || strings.Contains(name, "checkpointnodes") && !p.env.scenario.restarts {
		return proxy.Fault{}
	}
	hit := p.env.trace.record(p.role + " " + name)
	if hit == nil {
		return proxy.Fault{}
	}
	p.strike(hit, l)
	if l.dead.Load() || hit.before && hit.status != 0 {
		p.env.trace.faultDone(hit)
		return proxy.Fault{Disconnect: l.dead.Load(), RejectStatus: hit.status}
	}
	return proxy.Fault{ReplaceStatus: hit.status, AfterResponse: func() bool {
		defer p.env.trace.faultDone(hit)
		if hit.kills && !hit.before {
			l.kill()
		}
		return l.dead.Load() || hit.dropsResponse
	}}
}

// call does the work of a call to an engine or a store. A dead process does nothing.
func (l *life) call(what string, work func() error) error {
	if l.dead.Load() {
		return runtimetest.ErrDied
	}
	p := l.process
	if err := p.env.failure(what); err != nil {
		return err
	}
	hit := p.env.trace.record(p.role + " " + what)
	if hit == nil {
		return work()
	}
	defer p.env.trace.faultDone(hit)
	p.strike(hit, l)
	if l.dead.Load() {
		return runtimetest.ErrDied
	}
	if hit.before && hit.err != nil {
		return hit.err
	}
	err := work()
	if hit.kills {
		l.kill()
		return runtimetest.ErrDied
	}
	return errors.Join(err, hit.err)
}
