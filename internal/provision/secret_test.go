package provision

import (
	"testing"
	"time"
)

func TestRetryIntervalOfAMissingSecret(t *testing.T) {
	tests := map[string]struct {
		start, most, missing, want time.Duration
	}{
		"the first interval is the shortest":                     {time.Second, time.Hour, 0, time.Second},
		"the interval is as long as the secret has been missing": {time.Second, time.Hour, 7 * time.Second, 7 * time.Second},
		"the interval is bounded":                                {time.Second, time.Hour, 24 * time.Hour, 30 * time.Second},
		"a lower --retry-interval-max bounds it":                 {time.Second, 5 * time.Second, time.Hour, 5 * time.Second},
		"a higher --retry-interval-start is used":                {time.Minute, time.Minute, time.Hour, time.Minute},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := &Options{RetryStart: tt.start, RetryMax: tt.most}
			if got := o.secretRetryInterval(tt.missing); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
