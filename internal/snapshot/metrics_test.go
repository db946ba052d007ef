package snapshot

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestStartTime(t *testing.T) {
	asked := time.Unix(1000, 0)
	tests := map[string]struct{ first, want time.Time }{
		"observed within the second":                   {asked.Add(300 * time.Millisecond), asked.Add(300 * time.Millisecond)},
		"observed at once":                             {asked, asked},
		"observed long after, as after a restart":      {asked.Add(time.Hour), asked.Add(500 * time.Millisecond)},
		"never observed":                               {time.Time{}, asked.Add(500 * time.Millisecond)},
		"observed before it was created, by our clock": {asked.Add(-time.Minute), asked.Add(500 * time.Millisecond)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := startTime(asked, tt.first); !got.Equal(tt.want) {
				t.Errorf("got %s", got.Sub(asked))
			}
		})
	}
}

func TestOperationsAreMeasuredFromTheirStart(t *testing.T) {
	asked := time.Unix(1000, 0)
	now := asked.Add(400 * time.Millisecond)
	o := NewOperationDurations()
	o.now = func() time.Time { return now }
	w := Wait{UID: "a", Operation: OperationCreate, RequestedAt: asked}
	o.Started(w)
	now = now.Add(2 * time.Second)
	w.Driver = "d"
	o.Started(w) // Does not start again.
	w.Driver = ""
	o.Succeeded(w)
	o.Succeeded(w) // As if shown by a stale cache.
	o.Cancelled(Wait{UID: "b", Operation: OperationReady, RequestedAt: asked, PreProvisioned: true}, asked.Add(time.Hour))
	for how, want := range map[string]float64{"d success dynamic": 2, "unknown cancel pre-provisioned": 3599.5} {
		if got := sumsByLabels(t, o, "driver_name", "operation_status", "snapshot_type")[how]; got != want {
			t.Errorf("%s took %v, not %v", how, got, want)
		}
	}
}

// sumsByLabels are the seconds of all operations by some labels.
func sumsByLabels(t *testing.T, o *OperationDurations, names ...string) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(o)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			values := make([]string, len(names))
			for i, name := range names {
				values[i] = labels[name]
			}
			sums[strings.Join(values, " ")] = m.GetHistogram().GetSampleSum()
		}
	}
	return sums
}
