package csi_test

import (
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

// series returns the series of a family that has exactly these labels.
func series(t *testing.T, driver *csi.Driver, family string, labels map[string]string) *dto.Metric {
	t.Helper()
	families, err := driver.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != family {
			continue
		}
		for _, m := range f.GetMetric() {
			got := make(map[string]string)
			for _, l := range m.GetLabel() {
				got[l.GetName()] = l.GetValue()
			}
			if cmp.Equal(got, labels) {
				return m
			}
		}
	}
	return nil
}

func TestCallsAreMeasuredAsDashboardsExpect(t *testing.T) {
	fake := csitest.New(csitest.Options{Name: "fake.example.com"})
	driver := connectReady(t, fake)
	createVolumes(t, driver, 2)
	fake.FailNext(csi.CreateVolume, codes.ResourceExhausted, "no room")
	if _, err := driver.CreateVolume(t.Context(), volumeRequest("a", mib)); err == nil {
		t.Fatal("it succeeded")
	}
	for code, want := range map[string]uint64{"OK": 2, "ResourceExhausted": 1} {
		m := series(t, driver, "csi_sidecar_operations_seconds", map[string]string{
			"driver_name": "fake.example.com", "method_name": "/csi.v1.Controller/CreateVolume", "grpc_status_code": code,
		})
		if got := m.GetHistogram().GetSampleCount(); got != want {
			t.Errorf("%s: %d calls were measured, want %d", code, got, want)
		}
		var buckets []float64
		for _, b := range m.GetHistogram().GetBucket() {
			buckets = append(buckets, b.GetUpperBound())
		}
		if diff := cmp.Diff([]float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600}, buckets); diff != "" {
			t.Error(diff)
		}
	}
}

func TestCallsInFlightAreCounted(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	inFlight := func() float64 {
		return series(t, driver, "holdfast_csi_operations_in_flight", map[string]string{"method_name": "/csi.v1.Controller/CreateVolume"}).GetGauge().GetValue()
	}
	slow := fake.Block(csi.CreateVolume)
	var all sync.WaitGroup
	all.Go(func() { _, _ = driver.CreateVolume(t.Context(), volumeRequest("a", mib)) })
	waitFor(t, slow.Arrived())
	if got := inFlight(); got != 1 {
		t.Errorf("%v calls are in flight", got)
	}
	slow.Release()
	all.Wait()
	if got := inFlight(); got != 0 {
		t.Errorf("%v calls are in flight after the last response", got)
	}
}

func TestTheLimitOfASlowDriverIsAMetric(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	limit := func() *dto.Metric {
		return series(t, driver, "holdfast_csi_operations_limit", map[string]string{"method_name": "/csi.v1.Controller/CreateVolume"})
	}
	createVolumes(t, driver, 1)
	if got := limit(); got != nil {
		t.Errorf("there is a limit of %v without a timeout", got)
	}
	fake.FailNext(csi.CreateVolume, codes.DeadlineExceeded, "too slow")
	if _, err := driver.CreateVolume(t.Context(), volumeRequest("late", mib)); err == nil {
		t.Fatal("it succeeded")
	}
	if got := limit().GetGauge().GetValue(); got != 1 {
		t.Errorf("the limit is %v", got)
	}
}
