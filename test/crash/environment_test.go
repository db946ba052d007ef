package crash

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
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
	csi      *csi.Driver   // as the test calls the driver
	snapshot string        // the driver's handle of what is restored

	mu      sync.Mutex
	turn    func()        // what the world does at the scenario's turn
	hasty   bool          // the processes give a call to the driver little time
	hits    map[any]*blow // by request: calls that are to be struck when the driver has done its work
	late    map[any]*lateCall
	asked   int // CreateVolume calls of the run that have come
	creates int // those that the driver has worked on
	holds   map[*csipb.CreateVolumeRequest]hold
	unsure  map[string]string // by volume: the request of which nobody knows how it ended
	asks    map[string]bool   // names of snapshots that were asked for in the run
	ready   map[string]bool   // handles of snapshots that the driver has said to be ready
	classes int               // VolumeSnapshotClasses that were made
	events  int               // that the processes have written in the run
	denied  bool              // the right to protect snapshots was refused in the run
	broken  []error           // what should not happen in any run
}

func newStage(t *testing.T, sc *scenario) *stage {
	t.Helper()
	s := &stage{
		World: world.New(t, sc.driver), scenario: sc, hits: map[any]*blow{}, late: map[any]*lateCall{}, holds: map[*csipb.CreateVolumeRequest]hold{}, unsure: map[string]string{},
		asks: map[string]bool{}, ready: map[string]bool{},
	}
	s.CreateClass(t, sc.class)
	if sc.restores || sc.cuts() {
		s.api, s.csi = s.SnapshotClient(t), s.ConnectDriver(t)
	}
	if sc.scheduled {
		if err := v1alpha1.AddToScheme(s.api.Scheme()); err != nil {
			t.Fatal(err)
		}
	}
	if sc.restores {
		s.cutSnapshot(t)
	}
	if sc.cuts() {
		t.Cleanup(func() { loseClass(context.WithoutCancel(t.Context()), &run{stage: s}) })
	}
	s.Driver.SetHooks(csitest.Hooks{Before: s.called, After: s.done})
	t.Cleanup(func() { s.clear(context.WithoutCancel(t.Context()), t) })
	if slices.Contains(sc.struck(), "csi-resizer") {
		s.offerClasses(t)
	}
	for _, role := range sc.beside {
		s.runBeside(t, role)
	}
	for _, role := range sc.struck() {
		for i := range max(1, sc.leaders) {
			c := &controller{stage: s, role: role, calls: s.callTime(i)}
			c.args = s.argsOf(role, "--kubeconfig="+proxy.Start(t, s.Config, c.fate))
			s.controllers = append(s.controllers, c)
			t.Cleanup(c.kill)
			c.start()
		}
	}
	return s
}

// runBeside starts a process that is not struck.
func (s *stage) runBeside(t *testing.T, role string) {
	t.Helper()
	p, err := world.Start(role, s.argsOf(role)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s, which is not struck, said:\n%s", role, p.Log())
		}
	})
}

// argsOf are a role's, then args.
func (s *stage) argsOf(role string, args ...string) []string {
	args = append([]string{"--retry-interval-start=0.1", "--retry-interval-max=1"}, args...)
	switch role {
	case "csi-attacher":
		return s.AttacherArgs(args...)
	case "csi-resizer":
		return s.ResizerArgs(args...)
	case "csi-snapshotter":
		return s.SnapshotterArgs(args...)
	case "snapshot-controller":
		return s.SnapshotControllerArgs(args...)
	default:
		return s.ProvisionerArgs(append(args, "--strict-topology")...)
	}
}

// roleOf is who makes a call.
func roleOf(method csi.Method) string {
	switch method {
	case csi.ControllerPublishVolume, csi.ControllerUnpublishVolume:
		return "csi-attacher"
	case csi.ControllerExpandVolume, csi.ControllerModifyVolume:
		return "csi-resizer"
	case csi.CreateSnapshot, csi.DeleteSnapshot, csi.GetSnapshot, csi.ListSnapshots,
		csi.CreateVolumeGroupSnapshot, csi.DeleteVolumeGroupSnapshot, csi.GetVolumeGroupSnapshot:
		return "csi-snapshotter"
	default:
		return "csi-provisioner"
	}
}

func (s *stage) callerOf(ctx context.Context, method csi.Method) *controller {
	deadline, _ := ctx.Deadline()
	var last *controller
	for _, c := range s.controllers {
		if c.role != roleOf(method) {
			continue
		}
		if time.Until(deadline) <= c.calls {
			return c
		}
		last = c
	}
	return last
}

// strike does to the caller what is to happen. The scenario's turn comes after
// its death and before the fresh process starts.
func (s *stage) strike(caller *controller, hit *blow) {
	if hit.kills {
		caller.kill()
	}
	s.takeTurn(hit)
	if hit.kills {
		caller.start()
	}
	s.trace.happened(hit)
}

// takeTurn is what the world does if it is the scenario's turn.
func (s *stage) takeTurn(hit *blow) {
	if !hit.turn {
		return
	}
	hit.turn = false
	s.mu.Lock()
	turn := s.turn
	s.mu.Unlock()
	turn()
}

// fate is what becomes of a request of the process to the API server. A lease
// that is written is an intent: nobody has to be elected here.
func (c *controller) fate(r *http.Request) proxy.Fault {
	var fate proxy.Fault
	if sc := c.stage.scenario; proxy.IsWatch(r) && proxy.Resource(r) == sc.lagOf {
		fate.Delay = sc.lag
	}
	if proxy.Resource(r) == "events" {
		c.stage.told()
	}
	if !proxy.IsWrite(r) {
		return fate
	}
	what := proxy.Name(r)
	if len(c.stage.scenario.struck()) > 1 {
		what = c.role + " " + what
	}
	hit := c.stage.trace.arrive(what, "")
	switch {
	case hit == nil:
	case hit.early:
		c.stage.strike(c, hit)
		fate.Disconnect, fate.RejectStatus = hit.kills, hit.status
		c.stage.deny(proxy.Resource(r), hit.status)
	default:
		fate.ReplaceStatus = hit.status
		fate.AfterResponse = func() bool {
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
	s.queue(method, req)
	err := s.admit(ctx, method, req)
	if err != nil { // It does not come to done.
		s.finished(req)
		s.answered(req, err)
	}
	return err
}

// admit lets a call through to the driver, unless it is struck before.
func (s *stage) admit(ctx context.Context, method csi.Method, req any) error {
	if err := s.inspectRequest(ctx, req); err != nil {
		return err
	}
	hit := s.trace.arrive(string(method), subjectOf(req))
	if hit != nil && hit.early {
		s.strike(s.callerOf(ctx, method), hit)
		if err := hit.refusal(); err != nil {
			return err
		}
		hit = nil
	}
	if hit != nil && hit.outlasts() {
		s.outlast(ctx, method, req, hit)
	}
	if d, ok := req.(*csipb.DeleteVolumeRequest); ok && s.scenario.named {
		d.VolumeId = s.stored(d.VolumeId)
	}
	if err := s.scenario.refuses(req); err != nil {
		return s.answer(ctx, method, hit, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hits[req] = hit
	return nil
}

// inspectRequest looks at what is asked for, and whether it may be. A call may
// have to wait.
func (s *stage) inspectRequest(ctx context.Context, req any) error {
	switch r := req.(type) {
	case *csipb.CreateVolumeRequest:
		if err := s.beginCreate(ctx, r); err != nil {
			return err
		}
	case *csipb.CreateSnapshotRequest:
		s.inspectCut(ctx, r)
	case *csipb.CreateVolumeGroupSnapshotRequest:
		s.inspectGroup(ctx, r)
	}
	s.compareWithUnsure(req)
	return nil
}

// done comes after the driver has done its work.
func (s *stage) done(ctx context.Context, method csi.Method, req, resp any, err error) (any, error) {
	s.mu.Lock()
	hit := s.hits[req]
	delete(s.hits, req)
	s.mu.Unlock()
	obsolete := s.finished(req)
	if hit != nil && hit.outlasts() && !obsolete {
		ctx = context.WithoutCancel(ctx) // What is being filled is to be protected though nobody waits for it.
	}
	if create, ok := req.(*csipb.CreateVolumeRequest); ok {
		err = s.endCreate(ctx, create, err)
	}
	if made, ok := resp.(*csipb.CreateVolumeResponse); ok && s.scenario.named && err == nil {
		made.Volume.VolumeId = handleOf(made.Volume.VolumeContext["name"])
	}
	s.noteReady(resp)
	if hit == nil || !hit.outlasts() { // Else it is noted already, and another call may have ended that.
		s.noteUnsure(req, hit != nil && hit.unsure(method))
	}
	err = s.answer(ctx, method, hit, err)
	s.answered(req, err)
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// refuses is what the driver says to a request that it cannot fulfil.
func (sc *scenario) refuses(req any) error {
	switch r := req.(type) {
	case *csipb.CreateVolumeRequest:
		if sc.full != nil && sc.full(r) {
			return status.Error(codes.ResourceExhausted, "there is no room there")
		}
	case *csipb.ControllerExpandVolumeRequest:
		if sc.limit > 0 && r.GetCapacityRange().GetRequiredBytes() > sc.limit {
			return status.Error(codes.Internal, "there is no room for that")
		}
	}
	return nil
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
func (s *stage) answer(ctx context.Context, method csi.Method, hit *blow, err error) error {
	if hit == nil {
		return err
	}
	s.strike(s.callerOf(ctx, method), hit)
	switch {
	case hit.kills || hit.loses || hit.outlasts():
		return status.Error(codes.DeadlineExceeded, "the answer is lost")
	case hit.code != codes.OK:
		return status.Error(hit.code, "the driver fails on the way back")
	default:
		return err
	}
}

// counts tells whether a call is a point. What every process asks at its start
// is one only in the scenario that is about the start.
func (s *stage) counts(method csi.Method) bool {
	switch method {
	case csi.ListVolumes:
		return false // The clock asks for it.
	case csi.Probe, csi.GetPluginInfo, csi.GetPluginCapabilities, csi.ControllerGetCapabilities, csi.GroupControllerGetCapabilities:
		return s.scenario.fromStart
	default:
		return slices.Contains(s.scenario.struck(), roleOf(method))
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
	role  string
	args  []string
	calls time.Duration // what it gives a call to the driver

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
	args := c.args
	if c.role != "snapshot-controller" { // It has no driver.
		args = append(args[:len(args):len(args)], "--timeout="+c.calls.String())
	}
	p, err := world.Start(c.role, args...)
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
