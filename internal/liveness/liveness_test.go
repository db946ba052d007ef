package liveness

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

// options returns the options of a command line.
func options(t *testing.T, args ...string) Options {
	t.Helper()
	var o Options
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	o.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

// get asks a handler for a path.
func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	response := httptest.NewRecorder()
	h.ServeHTTP(response, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	text, err := io.ReadAll(response.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.Code, string(text)
}

func TestHealthFollowsTheDriver(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver, err := csi.Connect(t.Context(), csi.Options{Address: fake.Serve(t), Timeout: time.Second, NodeOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer driver.Close()
	if _, err := driver.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := options(t, "--http-endpoint=:1", "--probe-timeout=1s")
	handler := o.handlers(driver, driver.Gatherer())[":1"]
	if code, text := get(t, handler, "/healthz"); code != http.StatusOK || text != "ok" {
		t.Errorf("of a driver that is ready: %d %s", code, text)
	}
	fake.Crash()
	if code, text := get(t, handler, "/healthz"); code != http.StatusInternalServerError || !strings.Contains(text, "Probe") {
		t.Errorf("of a driver that is away: %d %s", code, text)
	}
	if err := fake.Restart(); err != nil {
		t.Fatal(err)
	}
	for code, text := 0, ""; code != http.StatusOK; code, text = get(t, handler, "/healthz") {
		if t.Context().Err() != nil {
			t.Fatalf("of a driver that is back: %d %s", code, text)
		}
	}
	if _, text := get(t, handler, "/metrics"); !strings.Contains(text, `method_name="/csi.v1.Identity/Probe"`) {
		t.Errorf("the metrics have no calls of Probe: %s", text)
	}
}

// A prober answers as it is told.
type prober struct {
	ready bool
	err   error
	hangs bool
}

// Probe implements Prober.
func (p prober) Probe(ctx context.Context) (bool, error) {
	if p.hangs {
		<-ctx.Done()
		return false, ctx.Err()
	}
	return p.ready, p.err
}

func TestHealth(t *testing.T) {
	tests := map[string]struct {
		driver prober
		code   int
		text   string
	}{
		"a driver that is ready":           {prober{ready: true}, http.StatusOK, "ok"},
		"a driver that is not ready yet":   {prober{}, http.StatusInternalServerError, "not ready"},
		"a driver that says what is wrong": {prober{err: errors.New("the disk is gone")}, http.StatusInternalServerError, "the disk is gone"},
		"a driver that does not answer":    {prober{hangs: true}, http.StatusInternalServerError, "deadline"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := &health{driver: tt.driver, timeout: 10 * time.Millisecond}
			if code, text := get(t, h, "/healthz"); code != tt.code || !strings.Contains(text, tt.text) {
				t.Errorf("got %d %s, want %d %s", code, text, tt.code, tt.text)
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	tests := map[string]struct {
		args []string
		want map[string][]string // paths by address
		err  string
	}{
		"health has a port of its own by default": {nil, map[string][]string{":9808": {"/healthz"}}, ""},
		"--health-port":                               {[]string{"--health-port=9898"}, map[string][]string{":9898": {"/healthz"}}, ""},
		"--metrics-address is a second address":       {[]string{"--metrics-address=:1"}, map[string][]string{":9808": {"/healthz"}, ":1": {"/metrics"}}, ""},
		"--http-endpoint has both":                    {[]string{"--http-endpoint=:1"}, map[string][]string{":1": {"/healthz", "/metrics"}}, ""},
		"another path of the metrics":                 {[]string{"--http-endpoint=:1", "--metrics-path=/m"}, map[string][]string{":1": {"/healthz", "/m"}}, ""},
		"two addresses of health are a mistake":       {[]string{"--http-endpoint=:1", "--health-port=1"}, nil, "--health-port"},
		"two addresses of the metrics are a mistake":  {[]string{"--http-endpoint=:1", "--metrics-address=:1"}, nil, "--metrics-address"},
		"the port that is the default changes little": {[]string{"--http-endpoint=:1", "--health-port=9808"}, map[string][]string{":1": {"/healthz", "/metrics"}}, ""},
		"no time for the driver is a mistake":         {[]string{"--probe-timeout=0s"}, nil, "--probe-timeout"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := options(t, tt.args...)
			if err := o.Validate(); (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("got %v, want %q", err, tt.err)
			}
			if tt.err != "" {
				return
			}
			all := o.handlers(prober{ready: true}, prometheus.NewRegistry())
			if len(all) != len(tt.want) {
				t.Errorf("got %d addresses, want %d", len(all), len(tt.want))
			}
			for address, paths := range tt.want {
				for _, path := range paths {
					if code, _ := get(t, all[address], path); code != http.StatusOK {
						t.Errorf("%s%s: %d", address, path, code)
					}
				}
			}
		})
	}
}
