package schedule

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // Images that hold nothing but this program have no time zones.

	"github.com/robfig/cron/v3"
)

// A calendar computes the times of a schedule's runs.
//
// When daylight saving time starts or ends, schedules with hours as numbers follow wall clock
// time: a run in a skipped hour is at the moment of the change, and a run in a repeated hour is
// in the first one. So no daily run is skipped or repeated. Schedules with * as the hour follow
// elapsed time: they run in both repeated hours. (Vixie cron does the same. The cron library
// alone would skip runs in a skipped hour and repeat those in a repeated hour.)
type calendar struct {
	spec *cron.SpecSchedule // without location: it computes in that of its argument
	zone *time.Location
}

// parserOptions accept five fields and names such as @daily.
const parserOptions = cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor

// starBit is set in a field of cron.SpecSchedule that was *.
const starBit = 1 << 63

// newCalendar parses schedule and time zone. Its errors name the field.
func newCalendar(spec *scheduleSpec) (*calendar, error) {
	if strings.Contains(spec.Schedule, "TZ=") {
		return nil, fmt.Errorf("spec.schedule %q: set the time zone in spec.timeZone", spec.Schedule)
	}
	parsed, err := cron.NewParser(parserOptions).Parse(spec.Schedule)
	if err != nil {
		return nil, fmt.Errorf("spec.schedule %q: %w; use five fields: minute, hour, day of month, month of year, day of week, for example 30 2 * * *", spec.Schedule, err)
	}
	s, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, fmt.Errorf("spec.schedule %q has no fixed times: use five fields, for example */15 * * * *", spec.Schedule)
	}
	zone, err := time.LoadLocation(spec.TimeZone)
	if err != nil || spec.TimeZone == "Local" {
		return nil, fmt.Errorf("spec.timeZone %q is not the name of a time zone: use one from the IANA database, for example Europe/Berlin", spec.TimeZone)
	}
	c := &calendar{spec: s, zone: zone}
	if c.next(time.Unix(0, 0)).IsZero() {
		return nil, fmt.Errorf("spec.schedule %q: no date matches", spec.Schedule)
	}
	return c, nil
}

// next returns the first run after a time, or zero if there is none for years.
func (c *calendar) next(after time.Time) time.Time {
	if c.spec.Hour&starBit != 0 {
		return c.nextElapsed(after)
	}
	return c.nextWallClock(after)
}

// nextElapsed follows elapsed time: between two changes of the zone's offset, the offset is
// fixed.
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

// nextWallClock follows wall clock time.
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

// wallClock returns the wall clock time of t as if it were UTC.
func wallClock(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// firstInstant returns when the wall clock first shows the given time or a later one.
func (c *calendar) firstInstant(wall time.Time) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), 0, 0, c.zone)
	start, end := t.ZoneBounds()
	switch shown := wallClock(t); {
	case shown.After(wall): // The time is skipped, and t has the offset from before the change.
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

// latest returns the last run after one time and not after another, or zero if there is none.
// It searches back in growing steps, so finding a run missed a year ago is as fast as one
// missed an hour ago.
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
