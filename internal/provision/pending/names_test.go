package pending

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func TestANameIsForOneClaimAtATime(t *testing.T) {
	var n reservedNames
	for _, step := range []struct {
		claim types.UID
		want  bool
	}{{"a", true}, {"a", true}, {"b", false}} {
		if got := n.reserve("pvc-1", step.claim); got != step.want {
			t.Errorf("claim %s: got %v", step.claim, got)
		}
	}
	n.release("pvc-1", "b") // Only a can release it.
	if n.reserve("pvc-1", "b") {
		t.Error("b has the name that a has reserved")
	}
	n.release("pvc-1", "a")
	if !n.reserve("pvc-1", "b") {
		t.Error("b cannot have the name that a has released")
	}
}
