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

// An environment is where the runs of one scenario take place, one after another: a
// world and the processes under test.
type environment struct {
	*world.World
	scenario    *scenario
	trace       trace
	controllers []*testedProcess

	api      client.Client // for snapshots; nil if the scenario has none
	csi      *csi.Driver   // the test's own connection to the driver
	snapshot string        // handle of the snapshot that is restored

	mu                 sync.Mutex
	disrupt            func()                 // runs the scenario's disruption
	shortTimeouts      bool                   // driver calls have a short timeout
	pendingFaults      map[any]*injectedFault // by request: calls with a fault after the driver's work
	slowCalls          map[any]*slowCall
	createsReceived    int // CreateVolume calls of the run that have arrived
	createsDone        int // those that the driver has finished
	protections        map[*csipb.CreateVolumeRequest]protection
	unknownOutcomes    map[string]string // by volume: the request with an unknown outcome
	requestedNames     map[string]bool   // names of snapshots that were requested in the run
	ready              map[string]bool   // handles of snapshots that the driver has reported as ready
	classes            int               // VolumeSnapshotClasses that were created
	events             int               // that the processes have written in the run
	snapshotsForbidden bool              // protecting snapshots was forbidden in the run
	violations         []error           // what must not happen in any run
}

func newStage(t *testing.T, sc *scenario) *environment {
	t.Helper()
	s := &environment{
		World: world.New(t, sc.driver), scenario: sc, pendingFaults: map[any]*injectedFault{}, slowCalls: map[any]*slowCall{}, protections: map[*csipb.CreateVolumeRequest]protection{}, unknownOutcomes: map[string]string{},
		requestedNames: map[string]bool{}, ready: map[string]bool{},
	}
	s.CreateClass(t, sc.class)
	if sc.restores || sc.takesSnapshots() {
		s.api, s.csi = s.SnapshotClient(t), s.ConnectDriver(t)
	}
	if sc.scheduled {
		if err := v1alpha1.AddToScheme(s.api.Scheme()); err != nil {
			t.Fatal(err)
		}
	}
	if sc.restores {
		s.createRestoreSource(t)
	}
	if sc.takesSnapshots() {
		t.Cleanup(func() { deleteClasses(context.WithoutCancel(t.Context()), &run{environment: s}) })
	}
	s.Driver.SetHooks(csitest.Hooks{Before: s.beforeCall, After: s.afterCall})
	t.Cleanup(func() { s.cleanUp(context.WithoutCancel(t.Context()), t) })
	if slices.Contains(sc.testedRoles(), "csi-resizer") {
		s.createAttributesClasses(t)
	}
	for _, role := range sc.background {
		s.startBackground(t, role)
	}
	for _, role := range sc.testedRoles() {
		for i := range max(1, sc.leaders) {
			c := &testedProcess{stage: s, role: role, callTimeout: s.callTimeoutOf(i)}
			c.args = s.argsOf(role, "--kubeconfig="+proxy.Start(t, s.Config, c.proxyFault))
			s.controllers = append(s.controllers, c)
			t.Cleanup(c.kill)
			c.start()
		}
	}
	return s
}

// startBackground starts a process that gets no faults.
func (s *environment) startBackground(t *testing.T, role string) {
	t.Helper()
	p, err := world.Start(role, s.argsOf(role)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("output of %s, which gets no faults:\n%s", role, p.Log())
		}
	})
}

// argsOf returns the arguments of a role, followed by args.
func (s *environment) argsOf(role string, args ...string) []string {
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

// roleOf returns the role that makes a call.
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

func (s *environment) callerOf(ctx context.Context, method csi.Method) *testedProcess {
	deadline, _ := ctx.Deadline()
	var last *testedProcess
	for _, c := range s.controllers {
		if c.role != roleOf(method) {
			continue
		}
		if time.Until(deadline) <= c.callTimeout {
			return c
		}
		last = c
	}
	return last
}

// inject injects a fault into the caller. The disruption comes after its death and
// before the new process starts.
func (s *environment) inject(caller *testedProcess, hit *injectedFault) {
	if hit.kills {
		caller.kill()
	}
	s.disruptIfDue(hit)
	if hit.kills {
		caller.start()
	}
	s.trace.faultDone(hit)
}

// disruptIfDue runs the scenario's disruption if it is due.
func (s *environment) disruptIfDue(hit *injectedFault) {
	if !hit.disrupts {
		return
	}
	hit.disrupts = false
	s.mu.Lock()
	disrupt := s.disrupt
	s.mu.Unlock()
	disrupt()
}

// proxyFault returns the fault for a request of the process to the API server. A write
// to a Lease is a pending operation: leader election is off.
func (c *testedProcess) proxyFault(r *http.Request) proxy.Fault {
	var fate proxy.Fault
	if sc := c.stage.scenario; proxy.IsWatch(r) && proxy.Resource(r) == sc.delayedResource {
		fate.Delay = sc.watchDelay
	}
	if proxy.Resource(r) == "events" {
		c.stage.countEvent()
	}
	if !proxy.IsWrite(r) {
		return fate
	}
	what := proxy.Name(r)
	if len(c.stage.scenario.testedRoles()) > 1 {
		what = c.role + " " + what
	}
	hit := c.stage.trace.record(what, "")
	switch {
	case hit == nil:
	case hit.before:
		c.stage.inject(c, hit)
		fate.Disconnect, fate.RejectStatus = hit.kills, hit.status
		c.stage.noteForbidden(proxy.Resource(r), hit.status)
	default:
		fate.ReplaceStatus = hit.status
		fate.AfterResponse = func() bool {
			c.stage.inject(c, hit)
			return hit.kills || hit.dropsResponse
		}
	}
	return fate
}

// beforeCall runs before the driver works on a call.
func (s *environment) beforeCall(ctx context.Context, method csi.Method, req any) error {
	if !s.isPoint(method) {
		return nil
	}
	s.waitForSlowCalls(method, req)
	err := s.admit(ctx, method, req)
	if err != nil { // afterCall is not called.
		s.finishCall(req)
		s.retryAnswered(req, err)
	}
	return err
}

// admit forwards a call to the driver, unless a fault prevents that.
func (s *environment) admit(ctx context.Context, method csi.Method, req any) error {
	if err := s.checkRequest(ctx, req); err != nil {
		return err
	}
	hit := s.trace.record(string(method), callSubject(req))
	if hit != nil && hit.before {
		s.inject(s.callerOf(ctx, method), hit)
		if err := hit.driverError(); err != nil {
			return err
		}
		hit = nil
	}
	if hit != nil && hit.outlivesCaller() {
		s.delayCall(ctx, method, req, hit)
	}
	if d, ok := req.(*csipb.DeleteVolumeRequest); ok && s.scenario.handlesAreNames {
		d.VolumeId = s.driverID(d.VolumeId)
	}
	if err := s.scenario.driverError(req); err != nil {
		s.noteOutcome(method, req, hit)
		return s.respond(ctx, method, hit, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pendingFaults[req] = hit
	return nil
}

// checkRequest checks a request's precondition. A call may have to wait.
func (s *environment) checkRequest(ctx context.Context, req any) error {
	switch r := req.(type) {
	case *csipb.CreateVolumeRequest:
		if err := s.beginCreate(ctx, r); err != nil {
			return err
		}
	case *csipb.CreateSnapshotRequest:
		s.checkClaimProtected(ctx, r)
	case *csipb.CreateVolumeGroupSnapshotRequest:
		s.checkGroupProtected(ctx, r)
	}
	s.checkUnknownOutcome(req)
	return nil
}

// afterCall runs after the driver has worked on a call.
func (s *environment) afterCall(ctx context.Context, method csi.Method, req, resp any, err error) (any, error) {
	s.mu.Lock()
	hit := s.pendingFaults[req]
	delete(s.pendingFaults, req)
	s.mu.Unlock()
	obsolete := s.finishCall(req)
	if hit != nil && hit.outlivesCaller() && !obsolete {
		ctx = context.WithoutCancel(ctx) // The source must be protected although nobody waits for the call.
	}
	if create, ok := req.(*csipb.CreateVolumeRequest); ok {
		err = s.endCreate(ctx, create, err)
	}
	if made, ok := resp.(*csipb.CreateVolumeResponse); ok && s.scenario.handlesAreNames && err == nil {
		made.Volume.VolumeId = namedHandle(made.Volume.VolumeContext["name"])
	}
	s.noteReady(resp)
	s.noteOutcome(method, req, hit)
	err = s.respond(ctx, method, hit, err)
	s.retryAnswered(req, err)
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// driverError is the driver's error for a request that it cannot fulfil.
func (sc *scenario) driverError(req any) error {
	switch r := req.(type) {
	case *csipb.CreateVolumeRequest:
		if sc.outOfCapacity != nil && sc.outOfCapacity(r) {
			return status.Error(codes.ResourceExhausted, "the zone is full")
		}
	case *csipb.ControllerExpandVolumeRequest:
		if sc.maxSize > 0 && r.GetCapacityRange().GetRequiredBytes() > sc.maxSize {
			return status.Error(codes.Internal, "the pool is full")
		}
	}
	return nil
}

// beginCreate delays the first call of a run if the scenario says so.
func (s *environment) beginCreate(ctx context.Context, create *csipb.CreateVolumeRequest) error {
	before := s.checkSource(ctx, create, noSource)
	s.mu.Lock()
	s.protections[create] = before
	s.createsReceived++
	slow := s.scenario.slowFirstCreate && s.createsReceived == 1
	s.mu.Unlock()
	if slow {
		return s.waitForQuiet(ctx)
	}
	return nil
}

// endCreate replaces the driver's response if the scenario says so.
func (s *environment) endCreate(ctx context.Context, create *csipb.CreateVolumeRequest, err error) error {
	s.mu.Lock()
	before := s.protections[create]
	delete(s.protections, create)
	s.mu.Unlock()
	s.checkSource(ctx, create, before)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.createsDone++
	if s.createsDone <= s.scenario.lateResponses {
		return status.Error(codes.DeadlineExceeded, "the driver is slow")
	}
	return err
}

// respond returns what the caller gets when the driver is done.
func (s *environment) respond(ctx context.Context, method csi.Method, hit *injectedFault, err error) error {
	if hit == nil {
		return err
	}
	s.inject(s.callerOf(ctx, method), hit)
	switch {
	case hit.kills || hit.dropsResponse || hit.outlivesCaller():
		return status.Error(codes.DeadlineExceeded, "the response is lost")
	case hit.code != codes.OK:
		return status.Error(hit.code, "the driver fails on the way back")
	default:
		return err
	}
}

// isPoint reports whether a call is a point. Calls that every process makes at its
// start are points only in the scenario that tests the start.
func (s *environment) isPoint(method csi.Method) bool {
	switch method {
	case csi.ListVolumes:
		return false // It is called periodically.
	case csi.Probe, csi.GetPluginInfo, csi.GetPluginCapabilities, csi.ControllerGetCapabilities, csi.GroupControllerGetCapabilities:
		return s.scenario.fromStart
	default:
		return slices.Contains(s.scenario.testedRoles(), roleOf(method))
	}
}

// namedHandle returns the handle of a volume at a driver whose handles are names.
func namedHandle(name string) string { return "named-" + name }

// driverID returns the driver's id of a handle.
func (s *environment) driverID(handle string) string {
	for _, v := range s.Driver.Volumes() {
		if namedHandle(v.Name) == handle {
			return v.ID
		}
	}
	return handle
}

// handle returns the volumeHandle of a volume at the driver.
func (s *environment) handle(v csitest.Volume) string {
	if s.scenario.handlesAreNames {
		return namedHandle(v.Name)
	}
	return v.ID
}

// reportViolation records what must not happen; the run fails.
func (s *environment) reportViolation(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations = append(s.violations, err)
}

// testedProcess is a process under test that is restarted when it ends.
type testedProcess struct {
	stage       *environment
	role        string
	args        []string
	callTimeout time.Duration // of driver calls

	mu        sync.Mutex
	running   *world.Process
	logs      []string // of processes of this run that have ended
	logOffset int      // where this run starts in the log of the running process
	exits     int      // how many processes have ended by themselves
}

// maxExits is how often a process is restarted after it has ended by itself.
const maxExits = 100

// start starts a new process. Like a kubelet, it restarts a process that ends by
// itself.
func (c *testedProcess) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	args := c.args
	if c.role != "snapshot-controller" { // It has no such flag.
		args = append(args[:len(args):len(args)], "--timeout="+c.callTimeout.String())
	}
	p, err := world.Start(c.role, args...)
	if err != nil {
		c.stage.reportViolation(err)
		return
	}
	c.running = p
	go func() {
		<-p.Done()
		c.mu.Lock()
		own := c.running == p
		if own {
			c.collectLog()
			c.exits++
		}
		hopeless := c.exits > maxExits
		c.mu.Unlock()
		if !own {
			return
		}
		c.stage.trace.note("a process ended by itself: %v", p.Err())
		if hopeless || !c.stage.scenario.fromStart {
			c.stage.reportViolation(fmt.Errorf("a process ended by itself: %w", p.Err()))
		}
		if !hopeless {
			c.start()
		}
	}()
}

// kill sends SIGKILL.
func (c *testedProcess) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		return
	}
	c.running.Kill()
	c.collectLog()
}

// collectLog keeps the output of the process that has ended.
func (c *testedProcess) collectLog() {
	c.logs = append(c.logs, c.running.Log()[c.logOffset:])
	c.running, c.logOffset = nil, 0
}

// log returns the output of the processes in this run.
func (c *testedProcess) log() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.logs
	if c.running != nil {
		all = append(all[:len(all):len(all)], c.running.Log()[c.logOffset:])
	}
	return strings.Join(all, "----- new process -----\n")
}

// startNewLog starts the log of a run.
func (c *testedProcess) startNewLog() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.logs = nil
	if c.running != nil {
		c.logOffset = len(c.running.Log())
	}
}
