package provision

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

func TestTheMessageOfAnOperationWithoutClaimSaysWhatToDo(t *testing.T) {
	s := state{claim: claim(), class: class(), info: driverInfo(t, csitest.Options{})}
	withOperation(t, &s)
	r := &Reconciler{options: options()}
	for failure, want := range map[error]string{
		fmt.Errorf("creating: %w", &secretError{errors.New("secret a/b not found")}): "create the secret again, or correct it; or make sure",
		errors.New("no answer"): "the volume is deleted then; or make sure",
	} {
		for _, part := range []string{"Claim team/data is gone", "volume pvc-" + uid, "delete this Lease. " + failure.Error(), want} {
			if got := r.orphanMessage(s.operation, failure); !strings.Contains(got, part) {
				t.Errorf("%q does not contain %q", got, part)
			}
		}
	}
	s.operation.Handle = "vol-1"
	if got := r.orphanMessage(s.operation, errors.New("no answer")); !strings.Contains(got, "has created volume pvc-"+uid+" with the id vol-1") {
		t.Errorf("%q does not name the volume", got)
	}
}
