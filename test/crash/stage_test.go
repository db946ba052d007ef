package crash

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/proxy"
	"github.com/holdfast-io/holdfast/test/world"
)

// A stage is where the runs of one scenario take place, one after another: a
// world, and the processes under test.
type stage struct {
	*world.World
	scenario    *scenario
	trace       trace
	controllers []*controller

	api      client.Client // for snapshots, nil if the scenario has none
	snapshot string        // the driver's handle of what is restored

	mu      sync.Mutex
	turn    func()        // what the world does at the scenario's turn
	hits    map[any]*blow // by request: calls that are to be struck when the driver has done its work
	asked   int           // CreateVolume calls of the run that have come
	creates int           // those that the driver has worked on
	holds   map[*csipb.CreateVolumeRequest]hold
	broken  []error // what should not happen in any run
}

func newStage(t *testing.T, sc *scenario) *stage {
	t.Helper()
	s := &stage{World: world.New(t, sc.driver), scenario: sc, hits: map[any]*blow{}, holds: map[*csipb.CreateVolumeRequest]hold{}}
	s.Class(t, sc.class)
	if sc.restores {
		s.cutSnapshot(t)
	}
	s.Driver.SetHooks(csitest.Hooks{Before: s.called, After: s.done})
	t.Cleanup(func() { s.clear(context.WithoutCancel(t.Context()), t) })
	for i := range max(1, sc.leaders) {
		c := &controller{stage: s}
		c.args = s.ProvisionerArgs("--kubeconfig="+proxy.Start(t, s.Config, c.fate), "--timeout="+callTime(i).String(),
			"--retry-interval-start=0.1", "--retry-interval-max=1", "--strict-topology")
		s.controllers = append(s.controllers, c)
		t.Cleanup(c.kill)
		c.start()
	}
	return s
}

// callTime is what the i-th process gives a call to the driver. All come
// through one socket: how much time a call has tells whose it is.
func callTime(i int) time.Duration { return time.Duration(i+1) * time.Minute }

func (s *stage) callerOf(ctx context.Context) *controller {
	deadline, _ := ctx.Deadline()
	for i, c := range s.controllers {
		if time.Until(deadline) <= callTime(i) {
			return c
		}
	}
	return s.controllers[0]
}

// strike does to the caller what is to happen. The scenario's turn comes after
// its death and before the fresh process starts.
func (s *stage) strike(caller *controller, hit *blow) {
	if hit.kills {
		caller.kill()
	}
	if hit.turn {
		s.mu.Lock()
		turn := s.turn
		s.mu.Unlock()
		turn()
	}
	if hit.kills {
		caller.start()
	}
	s.trace.happened(hit)
}

// fate is what becomes of a request of the process to the API server. A lease
// that is written is an intent: nobody has to be elected here.
func (c *controller) fate(r *http.Request) proxy.Fate {
	var fate proxy.Fate
	if sc := c.stage.scenario; proxy.IsWatch(r) && proxy.Resource(r) == sc.lagOf {
		fate.Late = sc.lag
	}
	if !proxy.IsWrite(r) {
		return fate
	}
	hit := c.stage.trace.arrive(proxy.Name(r))
	switch {
	case hit == nil:
	case hit.early:
		c.stage.strike(c, hit)
		fate.Broken = hit.kills
	default:
		fate.Answered = func() bool {
			c.stage.strike(c, hit)
			return hit.kills || hit.loses
		}
	}
	return fate
}

// called comes before the driver does its work.
func (s *stage) called(ctx context.Context, method csi.Method, req any) error {
	if !s.counts(method) {
		return nil
	}
	create, creating := req.(*csipb.CreateVolumeRequest)
	if creating {
		if err := s.beginCreate(ctx, create); err != nil {
			return err
		}
	}
	hit := s.trace.arrive(string(method))
	if hit != nil && hit.early {
		s.strike(s.callerOf(ctx), hit)
		if hit.kills {
			return status.Error(codes.Unavailable, "the caller died")
		}
		hit = nil
	}
	if d, ok := req.(*csipb.DeleteVolumeRequest); ok && s.scenario.named {
		d.VolumeId = s.stored(d.VolumeId)
	}
	if creating && s.scenario.full != nil && s.scenario.full(create) {
		return s.answer(ctx, hit, status.Error(codes.ResourceExhausted, "there is no room there"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hits[req] = hit
	return nil
}

// done comes after the driver has done its work.
func (s *stage) done(ctx context.Context, _ csi.Method, req, resp any, err error) (any, error) {
	s.mu.Lock()
	hit := s.hits[req]
	delete(s.hits, req)
	s.mu.Unlock()
	if create, ok := req.(*csipb.CreateVolumeRequest); ok {
		err = s.endCreate(ctx, create, err)
	}
	if made, ok := resp.(*csipb.CreateVolumeResponse); ok && s.scenario.named && err == nil {
		made.Volume.VolumeId = handleOf(made.Volume.VolumeContext["name"])
	}
	if err := s.answer(ctx, hit, err); err != nil {
		return nil, err
	}
	return resp, nil
}

// beginCreate lets the first call of a run wait if the scenario says so.
func (s *stage) beginCreate(ctx context.Context, create *csipb.CreateVolumeRequest) error {
	before := s.inspect(ctx, create, noSource)
	s.mu.Lock()
	s.holds[create] = before
	s.asked++
	slow := s.scenario.slow && s.asked == 1
	s.mu.Unlock()
	if slow {
		return s.linger(ctx)
	}
	return nil
}

// endCreate changes what the driver says if the scenario says so.
func (s *stage) endCreate(ctx context.Context, create *csipb.CreateVolumeRequest, err error) error {
	s.mu.Lock()
	before := s.holds[create]
	delete(s.holds, create)
	s.mu.Unlock()
	s.inspect(ctx, create, before)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.creates++
	if s.creates <= s.scenario.unsure {
		return status.Error(codes.DeadlineExceeded, "the driver is slow")
	}
	return err
}

// answer is what the caller gets when the driver is done.
func (s *stage) answer(ctx context.Context, hit *blow, err error) error {
	if hit == nil {
		return err
	}
	s.strike(s.callerOf(ctx), hit)
	if hit.kills || hit.loses {
		return status.Error(codes.DeadlineExceeded, "the answer is lost")
	}
	return err
}

// counts tells whether a call is a point. What every process asks at its start
// is one only in the scenario that is about the start.
func (s *stage) counts(method csi.Method) bool {
	switch method {
	case csi.Probe, csi.GetPluginInfo, csi.GetPluginCapabilities, csi.ControllerGetCapabilities:
		return s.scenario.fromStart
	default:
		return true
	}
}

// handleOf is the handle of a volume of a driver that has no numbers.
func handleOf(name string) string { return "named-" + name }

// stored is the id under which the score knows a handle.
func (s *stage) stored(handle string) string {
	for _, v := range s.Driver.Volumes() {
		if handleOf(v.Name) == handle {
			return v.ID
		}
	}
	return handle
}

// handle is what a PersistentVolume says about a volume at the driver.
func (s *stage) handle(v csitest.Volume) string {
	if s.scenario.named {
		return handleOf(v.Name)
	}
	return v.ID
}

// complain keeps what should not happen, for the run to fail with.
func (s *stage) complain(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = append(s.broken, err)
}

// controller is a process under test with somebody who starts it again.
type controller struct {
	stage *stage
	args  []string

	mu      sync.Mutex
	running *world.Process
	logs    []string // of the dead ones of this run
	old     int      // how much of the running one's log is about earlier runs
	ended   int      // how many have ended by themselves
}

// mostEnds is after how many ends by themselves processes are not started again.
const mostEnds = 100

// start starts a fresh process. One that ends by itself is started again, as
// the kubelet would.
func (c *controller) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := world.Start("csi-provisioner", c.args...)
	if err != nil {
		c.stage.complain(err)
		return
	}
	c.running = p
	go func() {
		<-p.Done()
		c.mu.Lock()
		own := c.running == p
		if own {
			c.bury()
			c.ended++
		}
		hopeless := c.ended > mostEnds
		c.mu.Unlock()
		if !own {
			return
		}
		c.stage.trace.note("a process ended by itself: %v", p.Err())
		if hopeless || !c.stage.scenario.fromStart {
			c.stage.complain(fmt.Errorf("a process ended by itself: %w", p.Err()))
		}
		if !hopeless {
			c.start()
		}
	}()
}

// kill ends the process as a power cut would.
func (c *controller) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		return
	}
	c.running.Kill()
	c.bury()
}

// bury keeps what the process that has ended said.
func (c *controller) bury() {
	c.logs = append(c.logs, c.running.Log()[c.old:])
	c.running, c.old = nil, 0
}

// said is what its processes have said in this run.
func (c *controller) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.logs
	if c.running != nil {
		all = append(all[:len(all):len(all)], c.running.Log()[c.old:])
	}
	return strings.Join(all, "----- a fresh process -----\n")
}

// forget begins a run.
func (c *controller) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.logs = nil
	if c.running != nil {
		c.old = len(c.running.Log())
	}
}
