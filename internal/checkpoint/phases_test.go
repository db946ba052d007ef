package checkpoint

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

// readyCheckpoint is a Checkpoint that waited for 5 s, was frozen for 1.5 s and then stored
// for 8.5 s.
func readyCheckpoint() *v1alpha1.Checkpoint {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := withCondition(v1alpha1.ConditionReady)
	c.CreationTimestamp = metav1.NewTime(at)
	c.Status.CheckpointTime = &metav1.MicroTime{Time: at.Add(5 * time.Second)}
	c.Status.CompletionTime = &metav1.Time{Time: at.Add(15 * time.Second)}
	c.Status.Frozen = "≤1.5s"
	c.Status.Containers = []v1alpha1.ContainerCheckpoint{{RawBytes: 1000, StoredBytes: 300}, {RawBytes: 500, StoredBytes: 100}}
	return c
}

// sums returns what the metrics have counted so far, by their label.
func sums(t *testing.T) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	registry := prometheus.NewPedanticRegistry()
	for _, c := range []prometheus.Collector{restores, phaseSeconds, frozenSeconds, sizes} {
		if err := registry.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.Metric {
			parts := []string{family.GetName()}
			for _, label := range m.Label {
				parts = append(parts, label.GetValue())
			}
			name := strings.Join(parts, "/")
			if family.GetType() == dto.MetricType_HISTOGRAM {
				all[name] = m.Histogram.GetSampleSum()
				all[name+"/count"] = float64(m.Histogram.GetSampleCount())
			} else {
				all[name] = m.Counter.GetValue()
			}
		}
	}
	return all
}

// Not parallel: the metrics are those of the process.
func TestPhasesOfReadyCheckpoints(t *testing.T) {
	const prefix = "checkpoint_operator_"
	for name, row := range map[string]struct {
		change func(*v1alpha1.Checkpoint)
		want   map[string]float64
	}{
		"each phase and the sizes of all containers": {
			func(*v1alpha1.Checkpoint) {},
			map[string]float64{
				"checkpoint_phase_seconds/waiting": 5, "checkpoint_phase_seconds/storing": 8.5, "checkpoint_phase_seconds/total": 15,
				"checkpoint_frozen_seconds": 1.5, "checkpoint_bytes_total/raw": 1500, "checkpoint_bytes_total/stored": 400,
				"checkpoint_phase_seconds/total/count": 1, "restore_total/success": 0, "restore_total/failed": 0,
			},
		},
		"a phase is not negative when a clock is wrong": {
			func(c *v1alpha1.Checkpoint) { c.Status.CheckpointTime.Time = c.CreationTimestamp.Add(-time.Hour) },
			map[string]float64{"checkpoint_phase_seconds/waiting": 0, "checkpoint_phase_seconds/waiting/count": 1},
		},
		"a time that is unknown is not counted": {
			func(c *v1alpha1.Checkpoint) { c.Status.Frozen, c.Status.CompletionTime = "", nil },
			map[string]float64{"checkpoint_phase_seconds/total/count": 0, "checkpoint_frozen_seconds/count": 0, "checkpoint_bytes_total/raw": 1500},
		},
	} {
		initPhases()
		before := sums(t)
		c := readyCheckpoint()
		row.change(c)
		recordPhases(c)
		after := sums(t)
		for metric, want := range row.want {
			if _, exists := before[prefix+metric]; !exists {
				t.Errorf("%s: %s does not exist before", name, metric)
			}
			if got := after[prefix+metric] - before[prefix+metric]; got != want {
				t.Errorf("%s: %s has grown by %v, want %v", name, metric, got, want)
			}
		}
	}
}

// Not parallel: the metrics are those of the process.
func TestRestoresAreCountedByTheStatusOfTheirCheckpoints(t *testing.T) {
	initPhases()
	before := sums(t)
	with := func(uid types.UID, succeeded, failed int64) *v1alpha1.Checkpoint {
		c := &v1alpha1.Checkpoint{}
		c.UID, c.Status.Restores = uid, v1alpha1.RestoreCounts{Succeeded: succeeded, Failed: failed}
		return c
	}
	countRestores(with("a", 0, 0), with("a", 1, 0))
	countRestores(with("a", 1, 0), with("a", 1, 0)) // Something else has changed.
	countRestores(with("a", 1, 0), with("a", 2, 1))
	countRestores(with("a", 2, 1), with("b", 7, 7)) // Another one of the same name.
	after := sums(t)
	for metric, want := range map[string]float64{"success": 2, "failed": 1} {
		if name := "checkpoint_operator_restore_total/" + metric; after[name]-before[name] != want {
			t.Errorf("%s has grown by %v, want %v", name, after[name]-before[name], want)
		}
	}
}
