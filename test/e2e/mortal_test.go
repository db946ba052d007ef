package e2e

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/proxy"
	"github.com/holdfast-io/holdfast/test/world"
)

// A way to die, or to lose an answer.
type way int

const (
	before way = iota // killed, and what it sent is thrown away
	after             // killed when the work is done
	lost              // it lives, and the answer does not come
)

var ways = map[string]way{"before": before, "after": after, "answer lost": lost}

// A mortal is one process of a world that is struck at one of its writes or
// calls, and replaced at once if that kills it.
type mortal struct {
	*world.World
	role       string
	args       []string
	methods    []csi.Method                           // the calls that count
	refuse     func(method csi.Method, req any) error // what the driver says to a call; may be nil
	kubeconfig string

	mu      sync.Mutex
	left    int // points until the strike; 0 for none
	way     way
	process *world.Process
	problem error
}

// live starts the process and what stands between it and the rest.
func (m *mortal) live(t *testing.T) {
	t.Helper()
	m.Driver.SetHooks(csitest.Hooks{
		Before: func(_ context.Context, method csi.Method, req any) error {
			if m.counts(method) && m.strike(before) {
				return status.Error(codes.Unavailable, "the caller is dead")
			}
			if m.refuse != nil {
				return m.refuse(method, req)
			}
			return nil
		},
		After: func(_ context.Context, method csi.Method, _, resp any, err error) (any, error) {
			if !m.counts(method) {
				return resp, err
			}
			m.strike(after)
			if m.strike(lost) {
				return nil, status.Error(codes.DeadlineExceeded, "the answer is lost")
			}
			return resp, err
		},
	})
	m.kubeconfig = proxy.Start(t, m.Config, m.fate)
	m.start()
	t.Cleanup(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.process.Kill()
		if t.Failed() {
			t.Logf("the last %s said:\n%s", m.role, m.process.Log())
		}
	})
}

func (m *mortal) counts(method csi.Method) bool { return slices.Contains(m.methods, method) }

// fate is what becomes of a request of the process to the API server.
func (m *mortal) fate(r *http.Request) proxy.Fate {
	switch {
	case !proxy.IsWrite(r):
		return proxy.Fate{}
	case m.strike(before):
		return proxy.Fate{Broken: true}
	default:
		return proxy.Fate{Answered: func() bool {
			m.strike(after)
			return m.strike(lost)
		}}
	}
}

func (m *mortal) start() {
	m.process, m.problem = world.Start(m.role, append(slices.Clone(m.args), "--kubeconfig="+m.kubeconfig, "--retry-interval-start=0.1", "--retry-interval-max=1s")...)
}

// strike strikes if this is the point and the way for it.
func (m *mortal) strike(now way) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left == 0 || now != m.way {
		return false
	}
	if m.left--; m.left > 0 {
		return false
	}
	if now != lost {
		m.process.Kill()
		m.start()
	}
	return true
}

func (m *mortal) arm(point int, by way) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left, m.way = point, by
}

// disarm tells whether there was a strike.
func (m *mortal) disarm(t *testing.T) bool {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.problem != nil {
		t.Fatal(m.problem)
	}
	struck := m.left == 0
	m.left = 0
	return struck
}

// sweep plays a scenario once for every point and every way to strike there,
// until there are no more points. Play gets a name that is new each time.
func (m *mortal) sweep(t *testing.T, play func(name string)) {
	t.Helper()
	points := 0
	for by, w := range ways {
		struck := true
		for point := 1; struck; point++ {
			m.arm(point, w)
			play(strings.ReplaceAll(strings.ToLower(by), " ", "-") + "-" + string(rune('a'+point)))
			if struck = m.disarm(t); struck {
				points++
			}
		}
	}
	t.Logf("%d strikes", points)
	if points == 0 {
		t.Error("nothing was struck")
	}
}
