package schedule

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func at(t testing.TB, text string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return moment.UTC()
}

func calendarOf(t testing.TB, schedule, zone string) *calendar {
	t.Helper()
	c, err := newCalendar(&scheduleSpec{Schedule: schedule, TimeZone: zone})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNext(t *testing.T) {
	const (
		newYork  = "America/New_York" // 2026: forward on March 8, back on November 1, both at 2:00
		lordHowe = "Australia/Lord_Howe"
	)
	tests := map[string]struct {
		schedule, zone, after string
		want                  []string
	}{
		"a daily time is that of the zone": {"30 2 * * *", "Europe/Berlin", "2026-01-10T00:00:00Z",
			[]string{"2026-01-10T01:30:00Z", "2026-01-11T01:30:00Z"}},
		"the time itself is not after itself": {"30 2 * * *", "UTC", "2026-01-10T02:30:00Z", []string{"2026-01-11T02:30:00Z"}},
		"what falls into a skipped hour is at the change": {"30 2 * * *", newYork, "2026-03-07T12:00:00-05:00",
			[]string{"2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"}},
		"two times in a skipped hour are one": {"15,45 2 * * *", newYork, "2026-03-08T00:00:00-05:00",
			[]string{"2026-03-08T03:00:00-04:00", "2026-03-09T02:15:00-04:00"}},
		"a time in a skipped hour and the one at its end are one": {"0 2,3 * * *", newYork, "2026-03-08T00:00:00-05:00",
			[]string{"2026-03-08T03:00:00-04:00", "2026-03-09T02:00:00-04:00"}},
		"what falls into an hour that comes twice is once": {"30 1 * * *", newYork, "2026-10-31T12:00:00-04:00",
			[]string{"2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"}},
		"asked between the two it is over": {"30 1 * * *", newYork, "2026-11-01T01:40:00-04:00",
			[]string{"2026-11-02T01:30:00-05:00"}},
		"hourly is every hour that passes, forward": {"0 * * * *", newYork, "2026-03-08T00:30:00-05:00",
			[]string{"2026-03-08T06:00:00Z", "2026-03-08T07:00:00Z", "2026-03-08T08:00:00Z"}},
		"hourly is every hour that passes, back": {"0 * * * *", newYork, "2026-11-01T00:30:00-04:00",
			[]string{"2026-11-01T05:00:00Z", "2026-11-01T06:00:00Z", "2026-11-01T07:00:00Z", "2026-11-01T08:00:00Z"}},
		"every quarter of an hour is both times": {"*/15 * * * *", newYork, "2026-11-01T01:40:00-04:00",
			[]string{"2026-11-01T05:45:00Z", "2026-11-01T06:00:00Z", "2026-11-01T06:15:00Z"}},
		"by name it is the same": {"@hourly", newYork, "2026-11-01T01:10:00-04:00",
			[]string{"2026-11-01T06:00:00Z", "2026-11-01T07:00:00Z"}},
		"half an hour that is skipped": {"15 2 * * *", lordHowe, "2026-10-03T12:00:00Z",
			[]string{"2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"}},
		"half an hour that comes twice": {"45 1 * * *", lordHowe, "2026-04-04T00:00:00Z",
			[]string{"2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"}},
		"a day that a zone has left out": {"0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z",
			[]string{"2011-12-31T00:00:00+14:00", "2012-12-30T12:00:00+14:00"}},
		"the 29th of February is waited for": {"0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", []string{"2028-02-29T00:00:00Z"}},
		"a day of the week":                  {"0 4 * * SUN", "UTC", "2026-11-21T00:00:00Z", []string{"2026-11-22T04:00:00Z", "2026-11-29T04:00:00Z"}},
		"@daily is midnight in the zone":     {"@daily", "Asia/Tokyo", "2026-11-21T00:00:00Z", []string{"2026-11-22T00:00:00+09:00"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := calendarOf(t, tt.schedule, tt.zone)
			moment := at(t, tt.after)
			var want, got []time.Time
			for _, w := range tt.want {
				moment = c.next(moment)
				want, got = append(want, at(t, w)), append(got, moment)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A run is found from wherever it is looked for, in both directions, over the
// changes of the clock.
func TestLatestAgreesWithNext(t *testing.T) {
	for _, schedule := range []string{"30 2 * * *", "*/20 * * * *", "0 1,2,3 * * *", "@hourly"} {
		for _, zone := range []string{"UTC", "America/New_York", "Australia/Lord_Howe"} {
			c := calendarOf(t, schedule, zone)
			for _, day := range []string{"2026-03-07T00:00:00Z", "2026-10-03T00:00:00Z", "2026-10-31T00:00:00Z", "2026-04-04T00:00:00Z"} {
				start := at(t, day)
				var last time.Time
				upcoming := c.next(start)
				for moment := start; moment.Before(start.Add(60 * time.Hour)); moment = moment.Add(7 * time.Minute) {
					for !upcoming.After(moment) {
						last, upcoming = upcoming, c.next(upcoming)
					}
					if got := c.next(moment); !got.Equal(upcoming) {
						t.Fatalf("%s %s: after %s comes %s, not %s", schedule, zone, moment, got, upcoming)
					}
					if got := c.latest(start, moment); !got.Equal(last) {
						t.Fatalf("%s %s: last until %s is %s, not %s", schedule, zone, moment, got, last)
					}
				}
			}
		}
	}
}

func TestLatestOfManyYearsIsFoundAtOnce(t *testing.T) {
	c := calendarOf(t, "* * * * *", "UTC")
	if got, want := c.latest(at(t, "1990-01-01T00:00:00Z"), at(t, "2026-11-21T12:34:56Z")), at(t, "2026-11-21T12:34:00Z"); !got.Equal(want) {
		t.Error(got)
	}
	yearly := calendarOf(t, "@yearly", "UTC")
	if got, want := yearly.latest(at(t, "1990-01-01T00:00:00Z"), at(t, "2026-11-21T12:34:56Z")), at(t, "2026-01-01T00:00:00Z"); !got.Equal(want) {
		t.Error(got)
	}
	if got := yearly.latest(at(t, "2026-01-01T00:00:00Z"), at(t, "2026-11-21T12:34:56Z")); !got.IsZero() {
		t.Error(got)
	}
}

func TestWhatIsNoScheduleIsRefusedByTheNameOfItsField(t *testing.T) {
	for name, tt := range map[string]struct{ schedule, zone, want string }{
		"too few fields":         {"30 2 * *", "UTC", `spec.schedule "30 2 * *"`},
		"seconds":                {"0 30 2 * * *", "UTC", "use five fields"},
		"an hour that is none":   {"30 25 * * *", "UTC", "spec.schedule"},
		"an unknown name":        {"@fortnightly", "UTC", "spec.schedule"},
		"a pause":                {"@every 1h", "UTC", "no fixed times"},
		"a time zone in it":      {"CRON_TZ=Asia/Tokyo 0 2 * * *", "UTC", "set the time zone in spec.timeZone"},
		"a day that never comes": {"0 0 31 2 *", "UTC", "no date matches"},
		"an unknown zone":        {"@daily", "Europe/Atlantis", `spec.timeZone "Europe/Atlantis"`},
		"the machine's own zone": {"@daily", "Local", "spec.timeZone"},
	} {
		_, err := newCalendar(&scheduleSpec{Schedule: tt.schedule, TimeZone: tt.zone})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
