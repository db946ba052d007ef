package schedule

import (
	"fmt"
	"time"
)

// clockReadings are the readings of two clocks at one moment. Either clock may be wrong: one
// that is ahead makes everything look old. Only what both agree on is trusted.
type clockReadings struct {
	own time.Time // of the machine of this process
	// server is the API server's time, which creation timestamps have; zero if unknown.
	server time.Time
}

// agree reports whether the clocks agree. If they do not, ages are unknown and no child is
// deleted because of its age.
func (c clockReadings) agree() bool {
	return !c.server.IsZero() && c.own.Sub(c.server).Abs() <= maxClockSkew
}

// earlier returns the earlier reading. By it, nothing is older than by the other clock.
func (c clockReadings) earlier() time.Time {
	if c.server.IsZero() {
		return c.own
	}
	return minTime(c.own, c.server)
}

// later returns the later reading.
func (c clockReadings) later() time.Time { return maxTime(c.own, c.server) }

// serverTime returns the API server's time, which creation timestamps have, or our own time if
// that is unknown.
func (c clockReadings) serverTime() time.Time {
	if c.server.IsZero() {
		return c.own
	}
	return c.server
}

// toOwn converts a time t to our own clock, which timers use, given the present reading by of
// the other clock. Zero stays zero.
func (c clockReadings) toOwn(t, by time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(c.own.Sub(by))
}

// message explains why ages are unknown, and what to do.
func (c clockReadings) message(t *terms) string {
	nothing := "no " + t.child + " is deleted because of its age: "
	if c.server.IsZero() {
		return nothing + fmt.Sprintf("the controller's clock says %s, and the API server's time is unknown because its responses have no Date header; "+
			"check the proxies between the controller and the API server", formatTime(c.own))
	}
	return nothing + fmt.Sprintf("the controller's clock says %s and the API server's clock says %s, which differ by more than %s; "+
		"synchronize the clocks of both machines, for example with NTP", formatTime(c.own), formatTime(c.server), maxClockSkew)
}
