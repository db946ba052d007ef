package app

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func flags(w *WorkerOptions, l *LeaderElectionOptions) *pflag.FlagSet {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	w.AddFlags(fs)
	l.AddFlags(fs)
	fs.IntP("v", "v", 0, "")
	return fs
}

func TestTheCommandLineOverridesTheEnvironmentWhichOverridesTheDefault(t *testing.T) {
	variable := EnvVar{Name: "RETRY_INTERVAL", Flags: []string{"retry-interval-start", "retry-interval-max"}}
	tests := map[string]struct {
		args       []string
		set        string
		start, max time.Duration
	}{
		"neither is set":     {nil, "", time.Second, 5 * time.Minute},
		"environment":        {nil, "7", 7 * time.Second, 7 * time.Second},
		"command line":       {[]string{"--retry-interval-start=2", "--retry-interval-max=1m"}, "", 2 * time.Second, time.Minute},
		"both":               {[]string{"--retry-interval-start=2"}, "7s", 2 * time.Second, 7 * time.Second},
		"a flag with a dash": {[]string{"-retry-interval-start", "2"}, "", 2 * time.Second, 5 * time.Minute},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("RETRY_INTERVAL", tt.set)
			var w WorkerOptions
			fs := flags(&w, &LeaderElectionOptions{})
			if err := fs.Parse(NormalizeDashes(fs, tt.args)); err != nil {
				t.Fatal(err)
			}
			if err := ApplyEnvironment(fs, variable); err != nil {
				t.Fatal(err)
			}
			if w.RetryStart != tt.start || w.RetryMax != tt.max {
				t.Errorf("got %s and %s, want %s and %s", w.RetryStart, w.RetryMax, tt.start, tt.max)
			}
		})
	}
}

func TestAnInvalidEnvironmentVariableIsAnErrorThatNamesIt(t *testing.T) {
	t.Setenv("WORKERS", "many")
	err := ApplyEnvironment(flags(&WorkerOptions{}, &LeaderElectionOptions{}), EnvVar{Name: "WORKERS", Flags: []string{"worker-threads"}})
	if err == nil || !strings.Contains(err.Error(), "WORKERS") || !strings.Contains(err.Error(), "many") {
		t.Errorf("got %v", err)
	}
}

func TestDoubleDashes(t *testing.T) {
	fs := flags(&WorkerOptions{}, &LeaderElectionOptions{})
	got := NormalizeDashes(fs, []string{"-v=5", "-v", "5", "-worker-threads=3", "--leader-election", "-x", "-unknown", "--", "-worker-threads"})
	want := []string{"-v=5", "-v", "5", "--worker-threads=3", "--leader-election", "-x", "-unknown", "--", "-worker-threads"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLeaderElectionDurationsAreValidated(t *testing.T) {
	valid := LeaderElectionOptions{Enabled: true, LeaseDuration: 15, RenewDeadline: 10, RetryPeriod: 5}
	for name, tt := range map[string]struct {
		change func(*LeaderElectionOptions)
		ok     bool
	}{
		"durations in order":                                         {func(*LeaderElectionOptions) {}, true},
		"a renew deadline as long as the Lease":                      {func(l *LeaderElectionOptions) { l.RenewDeadline = 15 }, false},
		"a retry period as long as the renew deadline":               {func(l *LeaderElectionOptions) { l.RetryPeriod = 10 }, false},
		"a retry period that with jitter exceeds the renew deadline": {func(l *LeaderElectionOptions) { l.RetryPeriod = 9 }, false},
		"no retry period":                                            {func(l *LeaderElectionOptions) { l.RetryPeriod = 0 }, false},
		"any durations without leader election":                      {func(l *LeaderElectionOptions) { l.RetryPeriod, l.Enabled = 10, false }, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := valid
			tt.change(&l)
			if err := l.Validate(); (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestLabelsOfTheLease(t *testing.T) {
	var l LeaderElectionOptions
	fs := flags(&WorkerOptions{}, &l)
	if err := fs.Parse([]string{"--leader-election-labels=a:1, b:2"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "1", "b": "2"}, l.Labels); diff != "" {
		t.Error(diff)
	}
	if err := fs.Parse([]string{"--leader-election-labels=a"}); err == nil {
		t.Error("a label without a value was accepted")
	}
}

func TestNamespace(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "from-pod")
	if got := Namespace("given"); got != "given" {
		t.Errorf("got %q", got)
	}
	if got := Namespace(""); got != "from-pod" {
		t.Errorf("got %q", got)
	}
}

func TestTheBoundsOfConcurrentCalls(t *testing.T) {
	tests := map[string]struct {
		given            DriverOptions
		workers          int
		wantMin, wantMax int
		wantErr          string
	}{
		"the minimum is a tenth of the workers":          {DriverOptions{}, 100, 10, 0, ""},
		"the minimum of few workers is one":              {DriverOptions{}, 4, 1, 0, ""},
		"flags override both":                            {DriverOptions{MinCalls: 3, MaxCalls: 20}, 100, 3, 20, ""},
		"a low maximum lowers a minimum that is not set": {DriverOptions{MaxCalls: 2}, 100, 2, 2, ""},
		"a minimum above the maximum is an error":        {DriverOptions{MinCalls: 3, MaxCalls: 2}, 100, 0, 0, "--max-concurrent-calls"},
		"a negative minimum is an error":                 {DriverOptions{MinCalls: -1}, 100, 0, 0, "--min-concurrent-calls"},
		"a negative maximum is an error":                 {DriverOptions{MaxCalls: -1}, 100, 0, 0, "--max-concurrent-calls"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := tt.given
			err := o.CompleteLimits(tt.workers)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("got %v, want an error about %s", err, tt.wantErr)
				}
				return
			}
			if err != nil || o.MinCalls != tt.wantMin || o.MaxCalls != tt.wantMax {
				t.Errorf("got %d to %d, %v; want %d to %d", o.MinCalls, o.MaxCalls, err, tt.wantMin, tt.wantMax)
			}
		})
	}
}
