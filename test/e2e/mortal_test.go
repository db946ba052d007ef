package e2e

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
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
	m.listen(t)
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

// listen puts a proxy between the process and the API server.
func (m *mortal) listen(t *testing.T) {
	t.Helper()
	transport, err := rest.TransportFor(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	upstream, err := url.Parse(m.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, // Watches are read while they run.
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		ErrorLog: log.New(io.Discard, "", 0), // Whoever is killed leaves requests behind.
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Events are sent in the background, and nothing depends on them.
		write := r.Method == http.MethodPatch && !strings.Contains(r.URL.Path, "/events")
		if !write {
			forward.ServeHTTP(w, r)
			return
		}
		if m.strike(before) {
			panic(http.ErrAbortHandler)
		}
		answer := httptest.NewRecorder()
		forward.ServeHTTP(answer, r)
		m.strike(after)
		if m.strike(lost) {
			panic(http.ErrAbortHandler)
		}
		for key, values := range answer.Header() {
			w.Header()[key] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // Whoever is dead does not read it.
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	k := clientcmdapi.NewConfig()
	k.Clusters["proxy"] = &clientcmdapi.Cluster{Server: server.URL}
	k.Contexts["proxy"] = &clientcmdapi.Context{Cluster: "proxy"}
	k.CurrentContext = "proxy"
	m.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*k, m.kubeconfig); err != nil {
		t.Fatal(err)
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
