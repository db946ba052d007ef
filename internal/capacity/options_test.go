package capacity

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func TestDefaultsAreUpstreams(t *testing.T) {
	var o Options
	o.AddFlags(pflag.NewFlagSet("test", pflag.ContinueOnError))
	want := Options{PollInterval: time.Minute, OwnerLevel: 1, Workers: 1}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Error(diff)
	}
}

func TestValidate(t *testing.T) {
	tests := map[string]struct {
		change func(*Options)
		want   string // in the error, "" for none
	}{
		"the usual is right":                    {func(*Options) {}, ""},
		"a poll needs time":                     {func(o *Options) { o.PollInterval = 0 }, "--capacity-poll-interval"},
		"work needs somebody":                   {func(o *Options) { o.Workers = 0 }, "--capacity-threads"},
		"there is nothing below none":           {func(o *Options) { o.OwnerLevel = -2 }, "--capacity-ownerref-level"},
		"an owner is found from the pod":        {func(o *Options) { o.OwnerLevel, o.Pod = 0, "" }, "POD_NAME"},
		"without owner no pod is needed":        {func(o *Options) { o.Pod = "" }, ""},
		"what is not enabled cannot be wrong":   {func(o *Options) { *o = Options{} }, ""},
		"all mistakes are told, also the first": {func(o *Options) { o.PollInterval, o.Workers = 0, 0 }, "--capacity-poll-interval"},
		"all mistakes are told, also the last":  {func(o *Options) { o.PollInterval, o.Workers = 0, 0 }, "--capacity-threads"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := options()
			tt.change(o)
			err := o.Validate()
			if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// Whatever pauses other work needs, a poll comes round at least as often.
func TestMaxRetry(t *testing.T) {
	for name, tt := range map[string]struct{ start, longest, poll, want time.Duration }{
		"the poll is sooner":                {time.Second, time.Hour, time.Minute, time.Minute},
		"the longest pause is sooner":       {time.Second, time.Minute, time.Hour, time.Minute},
		"the first pause is longer already": {time.Minute, time.Hour, time.Second, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{RetryStart: tt.start, RetryMax: tt.longest, PollInterval: tt.poll}
			if got := o.maxRetry(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
