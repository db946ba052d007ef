package provision

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/types"
)

func TestVolumeNames(t *testing.T) {
	for name, tt := range map[string]struct {
		length int
		want   string
		cuts   bool
	}{
		"the whole UID by default": {-1, "pvc-" + uid, false},
		"a part of it":             {12, "pvc-111111112222", true},
		"a single character":       {1, "pvc-1", true},
		"all of it without dashes": {32, "pvc-11111111222233334444555555555555", false},
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			o.NameLength = tt.length
			if got := o.volumeName(claim()); got != tt.want || o.truncatesUID() != tt.cuts {
				t.Errorf("got %s, and whether it cuts: %v", got, o.truncatesUID())
			}
		})
	}
}

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
	n.release("pvc-1", "b") // It is not its own to give.
	if n.reserve("pvc-1", "b") {
		t.Error("b has the name of a")
	}
	n.release("pvc-1", "a")
	if !n.reserve("pvc-1", "b") {
		t.Error("b cannot have the name that a gave back")
	}
}

func TestAttemptsAreCountedByClassAndSource(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	s := readyState(t)
	m.recordFailure(s)
	clones(&s)
	m.recordFailure(s)
	m.recordFailure(state{}) // Its claim is gone, and nothing was begun for it.
	withOperation(t, &s)
	s.operation.Source = &Source{Kind: KindSnapshot}
	s.claim = nil
	m.recordFailure(s)
	m.recordSuccess(s.operation, s.started)
	for _, tt := range []struct {
		of            *prometheus.CounterVec
		class, source string
	}{
		{m.failed, "fast", ""}, {m.failed, "fast", "PersistentVolumeClaim"}, {m.failed, "", ""},
		{m.failed, "fast", "VolumeSnapshot"}, {m.succeeded, "fast", "VolumeSnapshot"},
	} {
		var got dto.Metric
		if err := tt.of.WithLabelValues(tt.class, tt.source).Write(&got); err != nil || got.GetCounter().GetValue() != 1 {
			t.Errorf("class %q, source %q: got %v, %v", tt.class, tt.source, got.GetCounter(), err)
		}
	}
	var took dto.Metric
	if err := m.duration.WithLabelValues("fast", "VolumeSnapshot").(prometheus.Metric).Write(&took); err != nil || took.GetHistogram().GetSampleCount() != 1 {
		t.Errorf("the duration: %v, %v", took.GetHistogram(), err)
	}
	for _, b := range took.GetHistogram().GetBucket() {
		if b.GetUpperBound() == 600 {
			return
		}
	}
	t.Error("what takes minutes is in no bucket of its own")
}
