package kube

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// The newest response with a Date header sets the time.
func TestAClockHasTheTimeOfTheServer(t *testing.T) {
	date := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil // net/http does not set it.
		if date != "" {
			w.Header().Set("Date", date)
		}
		w.WriteHeader(http.StatusInternalServerError) // The status does not matter.
	}))
	defer server.Close()
	config, clock := &rest.Config{Host: server.URL}, &Clock{}
	config.Wrap(clock.Wrap)
	api, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	request := func(header string) (time.Time, bool) {
		t.Helper()
		date = header
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := api.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return clock.Now()
	}
	if _, known := clock.Now(); known {
		t.Error("the time is known before the first response")
	}
	for _, invalid := range []string{"", "yesterday"} {
		if now, known := request(invalid); known {
			t.Errorf("date %q is read as %s", invalid, now)
		}
	}
	for _, want := range []time.Time{time.Date(2026, 12, 6, 12, 0, 0, 0, time.UTC), time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)} {
		now, known := request(want.Format(http.TimeFormat))
		if off := now.Sub(want); !known || off < 0 || off > time.Minute {
			t.Errorf("%s is read as %s, known: %v", want, now, known)
		}
	}
	before, _ := clock.Now()
	if now, known := request(""); !known || now.Before(before) {
		t.Errorf("a response without a date makes it %s, known: %v", now, known)
	}
}

// A nil clock has no time.
func TestANilClockHasNoTime(t *testing.T) {
	var clock *Clock
	if now, known := clock.Now(); known {
		t.Error(now)
	}
}
