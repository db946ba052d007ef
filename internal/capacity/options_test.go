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
		"valid options":             {func(*Options) {}, ""},
		"no poll interval":          {func(o *Options) { o.PollInterval = 0 }, "--capacity-poll-interval"},
		"no workers":                {func(o *Options) { o.Workers = 0 }, "--capacity-threads"},
		"a level below -1":          {func(o *Options) { o.OwnerLevel = -2 }, "--capacity-ownerref-level"},
		"an owner without a pod":    {func(o *Options) { o.OwnerLevel, o.Pod = 0, "" }, "POD_NAME"},
		"no owner and no pod":       {func(o *Options) { o.Pod = "" }, ""},
		"not enabled":               {func(o *Options) { *o = Options{} }, ""},
		"the first of two mistakes": {func(o *Options) { o.PollInterval, o.Workers = 0, 0 }, "--capacity-poll-interval"},
		"the last of two mistakes":  {func(o *Options) { o.PollInterval, o.Workers = 0, 0 }, "--capacity-threads"},
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

// A retry is never later than the next poll.
func TestMaxRetry(t *testing.T) {
	for name, tt := range map[string]struct{ start, longest, poll, want time.Duration }{
		"the poll interval is shorter":                     {time.Second, time.Hour, time.Minute, time.Minute},
		"the longest pause is shorter":                     {time.Second, time.Minute, time.Hour, time.Minute},
		"the first pause is longer than the poll interval": {time.Minute, time.Hour, time.Second, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{RetryStart: tt.start, RetryMax: tt.longest, PollInterval: tt.poll}
			if got := o.maxRetry(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
