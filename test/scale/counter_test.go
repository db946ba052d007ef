package scale

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A counter stands between one process and the API server and counts what the
// process asks for, but for watches: those are begun once, and again when the
// server ends them, however many volumes there are.
type counter struct {
	mu     sync.Mutex
	counts map[string]int
	refuse func(*http.Request) bool // see turnAway
	// Kubeconfig leads through the counter.
	kubeconfig string
}

func newCounter(t *testing.T, config *rest.Config) *counter {
	t.Helper()
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	upstream, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{counts: map[string]int{}, refuse: func(*http.Request) bool { return false }, kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	reverse := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, // Watches are read while they run.
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.count(r)(r) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many requests, please try again later", http.StatusTooManyRequests)
			return
		}
		reverse.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	k := clientcmdapi.NewConfig()
	k.Clusters["counter"] = &clientcmdapi.Cluster{Server: server.URL}
	k.Contexts["counter"] = &clientcmdapi.Context{Cluster: "counter"}
	k.CurrentContext = "counter"
	if err := clientcmd.WriteToFile(*k, c.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return c
}

// lookedForAgain are asked for once a minute where they are not installed,
// however many volumes there are.
var lookedForAgain = map[string]bool{
	"/apis/gateway.networking.k8s.io/v1beta1/referencegrants": true,
	"/apis/snapshot.storage.k8s.io/v1/volumesnapshots":        true,
}

// count counts a request and returns what decides whether it is turned away.
func (c *counter) count(r *http.Request) (refuse func(*http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.URL.Query().Get("watch") != "true" && !lookedForAgain[r.URL.Path] {
		c.counts[r.Method+" "+kindIn(r.URL.Path)]++
	}
	return c.refuse
}

// turnAway has the requests that refuse tells turned away from now on.
func (c *counter) turnAway(refuse func(*http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = refuse
}

// kindIn is the kind of object in a path of the API, with its subresource.
func kindIn(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	at := 2 // api/v1/KIND
	if parts[0] == "apis" {
		at = 3 // apis/GROUP/VERSION/KIND
	}
	if len(parts) > at+1 && parts[at] == "namespaces" {
		at += 2
	}
	if len(parts) <= at {
		return path
	}
	return parts[at]
}

// take returns what was counted since the last time.
func (c *counter) take() requests {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.counts
	c.counts = map[string]int{}
	return taken
}

// requests are counts by method and kind.
type requests map[string]int

func (r requests) total() int {
	sum := 0
	for _, n := range r {
		sum += n
	}
	return sum
}

// per tells how many requests of each kind there were for each of n objects.
func (r requests) per(n int) string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(r)) {
		parts = append(parts, fmt.Sprintf("%s %.2f", what, float64(r[what])/float64(n)))
	}
	return strings.Join(parts, ", ")
}
