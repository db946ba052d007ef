package schedule

import (
	"fmt"
	"time"
)

// clockReadings are one moment as two clocks tell it. What they agree about is believed. Either
// may be wrong: one that is ahead makes everything look old.
type clockReadings struct {
	own time.Time // of the machine that this process is on
	// server is of the API server, which stamps objects; zero if it is not known.
	server time.Time
}

// agree tells whether ages can be known: nothing is removed by age otherwise.
func (c clockReadings) agree() bool {
	return !c.server.IsZero() && c.own.Sub(c.server).Abs() <= maxClockSkew
}

// earlier is what has passed for both. By it nothing is older than it is by the other.
func (c clockReadings) earlier() time.Time {
	if c.server.IsZero() {
		return c.own
	}
	return minTime(c.own, c.server)
}

// later is the time that neither clock has passed.
func (c clockReadings) later() time.Time { return maxTime(c.own, c.server) }

// serverTime is the clock that creation times are of, as far as it is known.
func (c clockReadings) serverTime() time.Time {
	if c.server.IsZero() {
		return c.own
	}
	return c.server
}

// toOwn is the time by our own clock, which timers go by, at which another clock will
// say t, if that says by now; zero for never.
func (c clockReadings) toOwn(t, by time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(c.own.Sub(by))
}

// message says why ages cannot be known, and what to do.
func (c clockReadings) message() string {
	const nothing = "no snapshot is removed for its age: "
	if c.server.IsZero() {
		return nothing + fmt.Sprintf("the clock of this controller says %s, and the API server's time is not known, because its responses have no Date header; "+
			"check what is between the controller and the API server", formatTime(c.own))
	}
	return nothing + fmt.Sprintf("the clock of this controller says %s and that of the API server %s, which differ by more than %s; "+
		"set the clocks of the machines that both are on, such as by NTP", formatTime(c.own), formatTime(c.server), maxClockSkew)
}
