package provision

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/holdfast-io/holdfast/internal/provision/source"
)

func TestAttemptsAreCountedByClassAndSource(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	s := readyState(t)
	m.recordFailure(s)
	clones(&s)
	m.recordFailure(s)
	m.recordFailure(state{}) // Its claim is gone, and nothing was begun for it.
	withOperation(t, &s)
	s.operation.Source = &source.Source{Kind: source.KindSnapshot}
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
