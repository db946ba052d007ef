package proxy

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
)

// A Counter counts what one process asks the API server for, but for watches:
// those are begun once, and again when the server ends them, however many
// objects there are.
type Counter struct {
	// Kubeconfig leads through the counter.
	Kubeconfig string

	mu     sync.Mutex
	counts Counts
	reject func(*http.Request) bool
}

// NewCounter serves a counter until the test ends. It speaks HTTP/2 as the API server
// does, so that many requests take few connections, and cost the process what
// they cost it there.
func NewCounter(t testing.TB, config *rest.Config) *Counter {
	t.Helper()
	c := &Counter{counts: Counts{}, reject: func(*http.Request) bool { return false }}
	server := newServer(t, config, func(r *http.Request) Fault {
		if c.count(r)(r) {
			return Fault{RejectStatus: http.StatusTooManyRequests}
		}
		return Fault{}
	})
	server.EnableHTTP2 = true
	server.StartTLS()
	c.Kubeconfig = writeKubeconfig(t, server)
	return c
}

// polledResources are asked for once a minute where they are not installed,
// however many objects there are.
var polledResources = map[string]bool{
	"/apis/gateway.networking.k8s.io/v1beta1/referencegrants": true,
	"/apis/snapshot.storage.k8s.io/v1/volumesnapshots":        true,
}

// count counts a request and returns what decides whether it is turned away.
func (c *Counter) count(r *http.Request) (refuse func(*http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !IsWatch(r) && !polledResources[r.URL.Path] {
		c.counts[Name(r)]++
	}
	return c.reject
}

// Reject has the requests that refuse tells turned away from now on. They are
// counted, too.
func (c *Counter) Reject(refuse func(*http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reject = refuse
}

// Reset returns what was counted since the last time.
func (c *Counter) Reset() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.counts
	c.counts = Counts{}
	return taken
}

// Counts are numbers of requests by [Name].
type Counts map[string]int

// Add adds more to the counts.
func (c Counts) Add(more Counts) {
	for what, n := range more {
		c[what] += n
	}
}

// Total is how many requests there were.
func (c Counts) Total() int {
	sum := 0
	for _, n := range c {
		sum += n
	}
	return sum
}

// PerObject tells how many requests of each name there were for each of n objects.
func (c Counts) PerObject(n int) string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, fmt.Sprintf("%s %.2f", what, float64(c[what])/float64(n)))
	}
	return strings.Join(parts, ", ")
}
