package scale

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/test/proxy"
	"github.com/holdfast-io/holdfast/test/world"
)

// A subject is the process that is measured.
type subject struct {
	*world.Process
	world    *world.World
	counter  *proxy.Counter
	endpoint string
	began    time.Time
	methods  []csi.Method // the calls that count
	profiled int          // how often
}

// startSubject starts role csi-provisioner with its default flags.
func startSubject(t *testing.T, w *world.World) *subject {
	t.Helper()
	return startRole(t, w, w.Provisioner, csi.CreateVolume, csi.DeleteVolume)
}

// startRole starts a role with its default flags. The methods are what it calls
// for each object.
func startRole(t *testing.T, w *world.World, start func(testing.TB, ...string) *world.Process, methods ...csi.Method) *subject {
	t.Helper()
	s := &subject{world: w, counter: proxy.Count(t, w.Config), endpoint: freeAddress(t), began: time.Now(), methods: methods}
	s.Process = start(t, append(profileFlags(), "--kubeconfig="+s.counter.Kubeconfig, "--http-endpoint="+s.endpoint)...)
	return s
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// calls are how many were made for objects so far.
func (s *subject) calls() (sum int) {
	for _, m := range s.methods {
		sum += s.world.Driver.Calls(m)
	}
	return sum
}

// A cost is what n objects have taken.
type cost struct {
	n         int
	requests  proxy.Counts
	calls     int
	took      time.Duration
	cpu       time.Duration
	allocated float64 // bytes
}

func (c *cost) requestsEach() float64 { return float64(c.requests.Total()) / float64(c.n) }
func (c *cost) callsEach() float64    { return float64(c.calls) / float64(c.n) }
func (c *cost) cpuEach() float64      { return c.cpu.Seconds() * 1000 / float64(c.n) }
func (c *cost) rate() float64         { return float64(c.n) / c.took.Seconds() }
func (c *cost) kiBEach() float64      { return c.allocated / 1024 / float64(c.n) }

func (c *cost) String() string {
	return fmt.Sprintf("%.2f requests, %.2f calls, %.0f KiB allocated, %.2f ms of processor", c.requestsEach(), c.callsEach(), c.kiBEach(), c.cpuEach())
}

// within asserts a budget of requests for each object.
func (c *cost) within(t *testing.T, budget int) {
	t.Helper()
	if n := c.requests.Total(); n > budget*c.n {
		t.Errorf("%d requests for %d objects: %s", n, c.n, c.requests.Per(c.n))
	}
}

// phase measures what n objects take, until nothing is asked for any more. The
// rate is that of what do waits for. What it takes to ask the process for its
// metrics is left out of the time of the processor and of what is allocated.
func (s *subject) phase(t *testing.T, n int, do func()) *cost {
	t.Helper()
	s.profile(t)
	before, look := s.lookedAt(t)
	c := &cost{n: n, calls: -s.calls(), allocated: -before - look} // For the look that ends the phase.
	c.cpu = -processor(t, s.PID())
	began := time.Now()
	do()
	c.took = time.Since(began)
	c.requests = s.settled(t)
	c.calls += s.calls()
	c.cpu += processor(t, s.PID())
	c.allocated += s.metric(t, metricAllocated)
	s.profile(t)
	return c
}

// lookedAt is what the process has allocated so far, and what a look at its metrics
// allocates: the least of several, for one now and then has buffers to make anew.
func (s *subject) lookedAt(t *testing.T) (now, look float64) {
	t.Helper()
	now, look = s.metric(t, metricAllocated), math.Inf(1)
	for range 4 {
		next := s.metric(t, metricAllocated)
		now, look = next, min(look, next-now)
	}
	return now, look
}

// settled returns what was counted when nothing is asked for any more.
func (s *subject) settled(t *testing.T) proxy.Counts {
	t.Helper()
	sum, quiet, last := proxy.Counts{}, 0, s.calls()
	const enough = 20 // looks without anything new, a second in all
	world.Eventually(t, func(context.Context) error {
		more := s.counter.Take()
		sum.Add(more)
		quiet++
		if len(more) > 0 || s.calls() != last {
			quiet, last = 0, s.calls()
		}
		if quiet < enough {
			return fmt.Errorf("still %d requests", sum.Total())
		}
		return nil
	})
	return sum
}

// ready waits until the process has all its caches and returns how long that
// took from its start.
func (s *subject) ready(t *testing.T) time.Duration {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if answer, err := http.Get("http://" + s.endpoint + "/readyz"); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return time.Since(s.began)
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
	metricAllocated = "go_memstats_alloc_bytes_total"
	metricLooks     = `controller_runtime_reconcile_total{controller="bind-snapshot",result="success"}`
	metricBusy      = `controller_runtime_reconcile_time_seconds_sum{controller="provision"}`
)

// metric is the value of one of the process's metrics.
func (s *subject) metric(t *testing.T, name string) float64 {
	t.Helper()
	n, ok := s.findMetric(t, name)
	if !ok {
		t.Fatalf("the process has no metric %s", name)
	}
	return n
}

// findMetric also tells whether the process has it yet.
func (s *subject) findMetric(t *testing.T, name string) (value float64, ok bool) {
	t.Helper()
	answer, err := http.Get("http://" + s.endpoint + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n, true
		}
	}
	return 0, false
}
