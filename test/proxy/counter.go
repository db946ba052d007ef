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

// A Counter counts the requests of one process to the API server, except watches:
// their number does not depend on how many objects exist.
type Counter struct {
	// Kubeconfig reaches the API server through the counter.
	Kubeconfig string

	mu     sync.Mutex
	counts Counts
	reject func(*http.Request) bool
}

// NewCounter serves a counter until the test ends. It uses HTTP/2 as the API server
// does, so that requests cost the process the same number of connections as without
// it.
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

// polledResources are requested once a minute while their CRD is not installed,
// however many objects exist.
var polledResources = map[string]bool{
	"/apis/gateway.networking.k8s.io/v1beta1/referencegrants": true,
	"/apis/snapshot.storage.k8s.io/v1/volumesnapshots":        true,
}

// count counts a request, and returns the function that decides whether to reject it.
func (c *Counter) count(r *http.Request) (refuse func(*http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !IsWatch(r) && !polledResources[r.URL.Path] {
		c.counts[Name(r)]++
	}
	return c.reject
}

// Reject makes the proxy reject requests with status 429 if reject returns true. They
// are counted, too.
func (c *Counter) Reject(refuse func(*http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reject = refuse
}

// Reset returns the counts since the last call.
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

// Total returns the number of all requests.
func (c Counts) Total() int {
	sum := 0
	for _, n := range c {
		sum += n
	}
	return sum
}

// PerObject formats how many requests of each name were sent for each of n objects.
func (c Counts) PerObject(n int) string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, fmt.Sprintf("%s %.2f", what, float64(c[what])/float64(n)))
	}
	return strings.Join(parts, ", ")
}
