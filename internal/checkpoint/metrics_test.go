package checkpoint

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

// withCondition is a Checkpoint with a condition that is True; "" for none.
func withCondition(kind string) *v1alpha1.Checkpoint {
	c := &v1alpha1.Checkpoint{}
	if kind != "" {
		c.Status.Conditions = []metav1.Condition{{Type: kind, Status: metav1.ConditionTrue}}
	}
	return c
}

func TestACheckpointIsCountedOnceWhenItEnds(t *testing.T) {
	for name, row := range map[string]struct{ before, after, want string }{
		"it becomes ready":     {"", "Ready", "created"},
		"it fails":             {"", "Failed", "failed"},
		"it goes on":           {"", "", ""},
		"it was ready before":  {"Ready", "Ready", ""},
		"its data are deleted": {"Ready", "", ""},
		"it had failed before": {"Failed", "Failed", ""},
	} {
		if got := ended(withCondition(row.before), withCondition(row.after)); got != row.want {
			t.Errorf("%s: got %q, want %q", name, got, row.want)
		}
	}
}

func TestTheNewestReadyCheckpointOfAPolicyCounts(t *testing.T) {
	at := func(policy, condition string, minute int) v1alpha1.Checkpoint {
		c := withCondition(condition)
		c.Spec.PolicyRef = policy
		c.Status.CheckpointTime = &metav1.MicroTime{Time: time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC)}
		return *c
	}
	got := newest([]v1alpha1.Checkpoint{
		at("hourly", "Ready", 5), at("hourly", "Ready", 3), at("hourly", "", 9), at("hourly", "Failed", 8), at("", "Ready", 1), *withCondition("Ready"),
	})
	if len(got) != 2 || got["hourly"].Minute() != 5 || got[""].Minute() != 1 {
		t.Errorf("got %v", got)
	}
}
