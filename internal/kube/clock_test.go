package kube

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// The newest response that has a date tells the time.
func TestAClockTellsTheTimeOfTheServer(t *testing.T) {
	date := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil // It is not filled in.
		if date != "" {
			w.Header().Set("Date", date)
		}
		w.WriteHeader(http.StatusInternalServerError) // What it says does not matter.
	}))
	defer server.Close()
	config, clock := &rest.Config{Host: server.URL}, &Clock{}
	config.Wrap(clock.Wrap)
	api, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(says string) (time.Time, bool) {
		t.Helper()
		date = says
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := api.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return clock.Now()
	}
	if _, known := clock.Now(); known {
		t.Error("the time is known before there was a response")
	}
	for _, nothing := range []string{"", "yesterday"} {
		if now, known := ask(nothing); known {
			t.Errorf("date %q is read as %s", nothing, now)
		}
	}
	for _, want := range []time.Time{time.Date(2026, 12, 6, 12, 0, 0, 0, time.UTC), time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)} {
		now, known := ask(want.Format(http.TimeFormat))
		if off := now.Sub(want); !known || off < 0 || off > time.Minute {
			t.Errorf("%s is read as %s, known: %v", want, now, known)
		}
	}
	before, _ := clock.Now()
	if now, known := ask(""); !known || now.Before(before) {
		t.Errorf("a response without a date makes it %s, known: %v", now, known)
	}
}

// Where nobody has made a clock the time is not known.
func TestNoClockKnowsNoTime(t *testing.T) {
	var none *Clock
	if now, known := none.Now(); known {
		t.Error(now)
	}
}
