package kube

import (
	"net/http"
	"sync"
	"time"
)

// A Clock tells the API server's time, without requests of its own: it reads the Date
// of each response that passes through [Clock.Wrap]. The zero Clock knows nothing yet,
// and a nil one never does.
type Clock struct {
	mu sync.Mutex
	// date is that of the newest response, and at is when it came. What has passed since
	// is measured by the monotonic clock, which nobody sets.
	date, at time.Time
}

// Wrap lets requests through to next and reads the dates of their responses. It is meant
// for rest.Config.Wrap.
func (c *Clock) Wrap(next http.RoundTripper) http.RoundTripper { return &dated{c, next} }

// Now is the API server's time, to a second or two; false if it is not known. While the
// machine sleeps the monotonic clock stands still, so the answer may be too early until
// the next response.
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

// read takes the time from a response. One without a date, or with one that makes no
// sense, tells nothing.
func (c *Clock) read(response *http.Response) {
	date, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.date, c.at = date, time.Now()
}

// dated is a transport whose responses a clock reads.
type dated struct {
	clock *Clock
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (d *dated) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := d.next.RoundTrip(request)
	if response != nil {
		d.clock.read(response)
	}
	return response, err
}

// WrappedRoundTripper lets client-go reach the transport below, to close its
// connections.
func (d *dated) WrappedRoundTripper() http.RoundTripper { return d.next }
