package kube

import (
	"net/http"
	"sync"
	"time"
)

// A Clock estimates the API server's time without requests of its own: it reads the
// Date header of each response that passes through [Clock.Wrap]. The zero Clock has no
// time until the first response. A nil Clock never has one.
type Clock struct {
	mu sync.Mutex
	// date is the Date of the newest response, and at is when it arrived. The
	// monotonic clock, which nobody can set, measures the time since then.
	date, at time.Time
}

// Wrap returns a transport that reads the dates of next's responses. It is an argument
// for rest.Config.Wrap.
func (c *Clock) Wrap(next http.RoundTripper) http.RoundTripper { return &clockTransport{c, next} }

// Now returns the API server's time, accurate to a second or two, or false if it is
// unknown. The monotonic clock stops while the machine sleeps. After that the time is
// too early until the next response.
func (c *Clock) Now() (time.Time, bool) {
	if c == nil {
		return time.Time{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return time.Time{}, false
	}
	return c.date.Add(time.Since(c.at)), true
}

// read sets the time from a response. It ignores one without a valid Date header.
func (c *Clock) read(response *http.Response) {
	date, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.date, c.at = date, time.Now()
}

// clockTransport is a transport whose responses a clock reads.
type clockTransport struct {
	clock *Clock
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *clockTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	if response != nil {
		t.clock.read(response)
	}
	return response, err
}

// WrappedRoundTripper returns the transport below, of which client-go closes idle
// connections.
func (t *clockTransport) WrappedRoundTripper() http.RoundTripper { return t.next }
