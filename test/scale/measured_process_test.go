package scale

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/test/proxy"
	"github.com/holdfast-io/holdfast/test/world"
)

// A measuredProcess is the process that is measured.
type measuredProcess struct {
	*world.Process
	world         *world.World
	counter       *proxy.Counter
	endpoint      string
	started       time.Time
	methods       []csi.Method // the calls that count
	profilesTaken int          // number of profiles
}

// startProvisioner starts role csi-provisioner with its default flags.
func startProvisioner(t *testing.T, w *world.World) *measuredProcess {
	t.Helper()
	return startRole(t, w, w.StartProvisioner, csi.CreateVolume, csi.DeleteVolume)
}

// startRole starts a role with its default flags. methods are its driver calls for
// each object.
func startRole(t *testing.T, w *world.World, start func(testing.TB, ...string) *world.Process, methods ...csi.Method) *measuredProcess {
	t.Helper()
	s := &measuredProcess{world: w, counter: proxy.NewCounter(t, w.Config), endpoint: world.FreeAddress(t), started: time.Now(), methods: methods}
	s.Process = start(t, append(profileFlags(), "--kubeconfig="+s.counter.Kubeconfig, "--http-endpoint="+s.endpoint)...)
	return s
}

// driverCalls returns the number of these calls so far.
func (s *measuredProcess) driverCalls() (sum int) {
	for _, m := range s.methods {
		sum += s.world.Driver.Calls(m)
	}
	return sum
}

// A startup is the cost of a process from its start until it is idle.
type startup struct {
	ready    time.Duration
	start    proxy.Counts
	startCPU time.Duration
	memory   memoryUse
}

// measureStart waits until the process is idle after its start.
func (s *measuredProcess) measureStart(t *testing.T) startup {
	t.Helper()
	of := startup{ready: s.waitReady(t)}
	of.start = s.waitIdle(t)
	of.startCPU, of.memory = cpuTime(t, s.PID()), memoryOf(t, s.PID())
	return of
}

// startupRows adds the rows of a startup to a table.
func startupRows[T any](b *columns[T], of func(T) *startup) {
	b.row("start to ready", func(x T) string { return fmt.Sprintf("%.2f s", of(x).ready.Seconds()) })
	b.row("requests until idle", func(x T) string { return fmt.Sprint(of(x).start.Total()) })
	b.row("CPU time until idle", func(x T) string { return fmt.Sprintf("%.2f s", of(x).startCPU.Seconds()) })
	b.row("memory when idle", func(x T) string { return of(x).memory.String() })
}

// A cost is what n objects have cost.
type cost struct {
	n         int
	requests  proxy.Counts
	calls     int
	duration  time.Duration
	cpu       time.Duration
	allocated float64 // bytes
}

func (c *cost) requestsEach() float64 { return float64(c.requests.Total()) / float64(c.n) }
func (c *cost) callsEach() float64    { return float64(c.calls) / float64(c.n) }
func (c *cost) cpuEach() float64      { return c.cpu.Seconds() * 1000 / float64(c.n) }
func (c *cost) perSecond() float64    { return float64(c.n) / c.duration.Seconds() }
func (c *cost) kiBEach() float64      { return c.allocated / 1024 / float64(c.n) }

func (c *cost) String() string {
	return fmt.Sprintf("%.2f requests, %.2f calls, %.0f KiB allocated, %.2f ms of CPU", c.requestsEach(), c.callsEach(), c.kiBEach(), c.cpuEach())
}

// checkBudget checks a budget of requests for each object.
func (c *cost) checkBudget(t *testing.T, budget int) {
	t.Helper()
	if n := c.requests.Total(); n > budget*c.n {
		t.Errorf("%d requests for %d objects: %s", n, c.n, c.requests.PerObject(c.n))
	}
}

// measure runs do for n objects, and returns the cost until the process is idle again.
// duration covers only do. Reading the process's metrics is not part of its CPU time
// and allocations.
func (s *measuredProcess) measure(t *testing.T, n int, do func()) *cost {
	t.Helper()
	s.profile(t)
	before, look := s.allocatedSoFar(t)
	c := &cost{n: n, calls: -s.driverCalls(), allocated: -before - look} // look is for the read at the end.
	c.cpu = -cpuTime(t, s.PID())
	began := time.Now()
	do()
	c.duration = time.Since(began)
	c.requests = s.waitIdle(t)
	c.calls += s.driverCalls()
	c.cpu += cpuTime(t, s.PID())
	c.allocated += s.metric(t, metricAllocated)
	s.profile(t)
	return c
}

// allocatedSoFar returns what the process has allocated so far, and what reading its
// metrics allocates: the least of several reads, because some have to grow buffers.
func (s *measuredProcess) allocatedSoFar(t *testing.T) (now, look float64) {
	t.Helper()
	now, look = s.metric(t, metricAllocated), math.Inf(1)
	for range 4 {
		next := s.metric(t, metricAllocated)
		now, look = next, min(look, next-now)
	}
	return now, look
}

// waitIdle returns the counted requests when the process has been idle for a second.
func (s *measuredProcess) waitIdle(t *testing.T) proxy.Counts {
	t.Helper()
	sum, quiet, last := proxy.Counts{}, 0, s.driverCalls()
	const enough = 20 // checks without a request, a second in all
	world.Eventually(t, func(context.Context) error {
		more := s.counter.Reset()
		sum.Add(more)
		quiet++
		if len(more) > 0 || s.driverCalls() != last {
			quiet, last = 0, s.driverCalls()
		}
		if quiet < enough {
			return fmt.Errorf("still %d requests", sum.Total())
		}
		return nil
	})
	return sum
}

// waitReady waits until the process is ready, and returns the time since its start.
func (s *measuredProcess) waitReady(t *testing.T) time.Duration {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if response, err := http.Get("http://" + s.endpoint + "/readyz"); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return time.Since(s.started)
			}
		}
		select {
		case <-s.Done():
			t.Fatalf("the process ended: %v", s.Err())
		case <-t.Context().Done():
			t.Fatal("the process is not ready")
		default:
		}
	}
	return 0
}

// Metrics that the process has about itself.
const (
	// Metrics of the process.
	metricAllocated     = "go_memstats_alloc_bytes_total"
	metricReconciles    = `controller_runtime_reconcile_total{controller="bind-snapshot",result="success"}`
	metricReconcileTime = `controller_runtime_reconcile_time_seconds_sum{controller="provision"}`
)

// metric returns the value of one of the process's metrics.
func (s *measuredProcess) metric(t *testing.T, name string) float64 {
	t.Helper()
	n, ok := s.findMetric(t, name)
	if !ok {
		t.Fatalf("the process has no metric %s", name)
	}
	return n
}

// findMetric also reports whether the metric exists.
func (s *measuredProcess) findMetric(t *testing.T, name string) (value float64, ok bool) {
	t.Helper()
	metrics, err := world.HTTPGet(t.Context(), "http://"+s.endpoint+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(metrics) {
		if text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), name+" "); ok {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n, true
		}
	}
	return 0, false
}
