package schedule

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // Images that hold nothing but this program have no time zones.

	"github.com/robfig/cron/v3"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// A calendar tells when the runs of a schedule are.
//
// When clocks are changed, hours that are given as numbers follow the clock on
// the wall: what falls into an hour that is skipped is at the moment of the
// change, and what falls into an hour that comes twice is at the first of them.
// So nothing that is daily is left out or done twice. With * as the hour it
// follows the time that passes: in an hour that comes twice it is both times.
// (Of cron programs Vixie's does so. The library's own reckoning leaves out what
// falls into a skipped hour and does the other twice.)
type calendar struct {
	spec *cron.SpecSchedule // It has no location: it reckons in that of the time it is given.
	zone *time.Location
}

// parserOptions is the syntax of five fields and of names such as @daily.
const parserOptions = cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor

// starBit marks a field of cron.SpecSchedule that was a star.
const starBit = 1 << 63

// newCalendar reads schedule and time zone. Its errors name the field.
func newCalendar(spec *v1alpha1.SnapshotScheduleSpec) (*calendar, error) {
	if strings.Contains(spec.Schedule, "TZ=") {
		return nil, fmt.Errorf("spec.schedule %q: set the time zone in spec.timeZone", spec.Schedule)
	}
	parsed, err := cron.NewParser(parserOptions).Parse(spec.Schedule)
	if err != nil {
		return nil, fmt.Errorf("spec.schedule %q: %w; five fields are needed: minute, hour, day of month, month of year, day of week, such as 30 2 * * *", spec.Schedule, err)
	}
	s, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, fmt.Errorf("spec.schedule %q has no fixed times: use five fields, for example */15 * * * *", spec.Schedule)
	}
	zone, err := time.LoadLocation(spec.TimeZone)
	if err != nil || spec.TimeZone == "Local" {
		return nil, fmt.Errorf("spec.timeZone %q is not the name of a time zone: give one of the IANA database, such as Europe/Berlin", spec.TimeZone)
	}
	c := &calendar{spec: s, zone: zone}
	if c.next(time.Unix(0, 0)).IsZero() {
		return nil, fmt.Errorf("spec.schedule %q: there is no such day", spec.Schedule)
	}
	return c, nil
}

// next is the first time after another; zero if there is none for years.
func (c *calendar) next(after time.Time) time.Time {
	if c.spec.Hour&starBit != 0 {
		return c.nextElapsed(after)
	}
	return c.nextWallClock(after)
}

// nextElapsed follows the time that passes: between two changes of the clock the
// offset is fixed.
func (c *calendar) nextElapsed(after time.Time) time.Time {
	for at := after; ; {
		_, offset := at.In(c.zone).Zone()
		_, change := at.In(c.zone).ZoneBounds()
		t := c.spec.Next(after.In(time.FixedZone("", offset)))
		if t.IsZero() || change.IsZero() || t.Before(change) {
			return t.UTC()
		}
		after, at = change.Add(-time.Nanosecond), change
	}
}

// nextWallClock follows the clock on the wall.
func (c *calendar) nextWallClock(after time.Time) time.Time {
	wall := wallClock(after.In(c.zone))
	for {
		if wall = c.spec.Next(wall); wall.IsZero() {
			return wall
		}
		if t := c.firstInstant(wall); t.After(after) {
			return t.UTC()
		}
	}
}

// wallClock is what a clock on the wall shows, as if it were UTC.
func wallClock(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// firstInstant is when the clock on the wall first shows a time or a later one.
func (c *calendar) firstInstant(wall time.Time) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), 0, 0, c.zone)
	start, end := t.ZoneBounds()
	switch shown := wallClock(t); {
	case shown.After(wall): // It is skipped, and t was reckoned as from before the change.
		return start
	case shown.Before(wall):
		return end
	case start.IsZero():
		return t
	}
	_, before := start.Add(-time.Nanosecond).In(c.zone).Zone()
	if earlier := wall.Add(-time.Duration(before) * time.Second); earlier.Before(start) && earlier.Before(t) {
		return earlier
	}
	return t
}

// latest is the last time after one and not after another; zero if there is
// none. It looks back in steps that grow, so that what was missed for a year is
// found as fast as what was missed for an hour.
func (c *calendar) latest(after, until time.Time) time.Time {
	for back := time.Hour; ; back *= 2 {
		from := until.Add(-back)
		if from.Before(after) {
			from = after
		}
		var last time.Time
		for t := c.next(from); !t.IsZero() && !t.After(until); t = c.next(t) {
			last = t
		}
		if !last.IsZero() || !from.After(after) {
			return last
		}
	}
}
