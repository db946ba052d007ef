package provision

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

func TestPauseForAMissingSecret(t *testing.T) {
	tests := map[string]struct {
		start, most, missing, want time.Duration
	}{
		"the first pause is the shortest":               {time.Second, time.Hour, 0, time.Second},
		"it waits as long again":                        {time.Second, time.Hour, 7 * time.Second, 7 * time.Second},
		"a secret that comes late is found in time":     {time.Second, time.Hour, 24 * time.Hour, 30 * time.Second},
		"a longest pause below that holds":              {time.Second, 5 * time.Second, time.Hour, 5 * time.Second},
		"a fixed pause above that is what is asked for": {time.Minute, time.Minute, time.Hour, time.Minute},
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

func TestWhoeverFindsAnOrphanedIntentIsToldWhatToDo(t *testing.T) {
	s := state{claim: claim(), class: class(), info: driverInfo(t, csitest.Options{})}
	withOperation(t, &s)
	r := &Reconciler{options: options()}
	for failure, want := range map[error]string{
		fmt.Errorf("creating: %w", &secretMissingError{errors.New("secret a/b not found")}): "make the secret again; or make sure",
		errors.New("no answer"): "what was made is deleted then; or make sure",
	} {
		for _, part := range []string{"Claim team/data is gone", "volume pvc-" + uid, "delete this Lease. " + failure.Error(), want} {
			if got := r.orphanMessage(s.operation, failure); !strings.Contains(got, part) {
				t.Errorf("%q does not say %q", got, part)
			}
		}
	}
	s.operation.Handle = "vol-1"
	if got := r.orphanMessage(s.operation, errors.New("no answer")); !strings.Contains(got, "has made volume pvc-"+uid+" with the id vol-1") {
		t.Errorf("%q does not say which volume there is", got)
	}
}
