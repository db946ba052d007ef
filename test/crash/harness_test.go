package crash

import (
	"context"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// Pairs of faults exist for creating calls only, twice as many with a disruption.
func TestPairs(t *testing.T) {
	t.Parallel()
	points := []point{"POST leases 1", "CreateVolume 1", "DeleteVolume 1"}
	once := (&scenario{}).faultPairs(points)
	if want := len(unknownOutcomeFaults) * len(retryErrors(csi.CreateVolume)); len(once) != want {
		t.Errorf("%d pairs without a disruption, want %d", len(once), want)
	}
	turned := (&scenario{disruption: deleteClaims}).faultPairs(points)
	if len(turned) != 2*len(once) {
		t.Errorf("%d pairs with a disruption, and %d without", len(turned), len(once))
	}
	labels := map[string]bool{}
	for _, s := range turned {
		if s.at != points[1] {
			t.Errorf("a pair starts at %s", s.at)
		}
		labels[s.label("claim deleted")] = true
	}
	if len(labels) != len(turned) {
		t.Errorf("%d pairs have %d names", len(turned), len(labels))
	}
	if s := (&scenario{leaders: 2}).faultPairs(points); len(s) > 0 {
		t.Errorf("two leaders have %d pairs", len(s))
	}
}

// The sample injects every fault in some scenario.
func TestSampleHasEveryFault(t *testing.T) {
	t.Parallel()
	points := []point{
		"POST leases 1", "CreateVolume 1", "POST persistentvolumes 1", "DELETE leases 1", "DeleteVolume 1", "PATCH persistentvolumes 1",
		"DELETE persistentvolumes 1",
	}
	missing := map[string]bool{}
	for _, kind := range faultKinds() {
		missing[kind] = true
	}
	for number, sc := range scenarios {
		for _, s := range sc.sample(points, number) {
			delete(missing, s.kind())
		}
	}
	for kind := range missing {
		t.Errorf("no scenario has the fault %q", kind)
	}
}

// A retry is the next call for the same object, whatever its number.
func TestRetryGetsFault(t *testing.T) {
	t.Parallel()
	tr := &trace{}
	tr.start(injection{at: "CreateVolume 1", fault: responseLost, retryFault: errorInstead(codes.Internal), disruption: retryPoint})
	arrives := func(subject, want string, disrupts bool) {
		t.Helper()
		hit := tr.record("CreateVolume", subject)
		if want == "" {
			if hit != nil {
				t.Errorf("%s gets the fault %s", subject, hit.name)
			}
			return
		}
		if hit == nil || hit.name != want || hit.disrupts != disrupts {
			t.Fatalf("%s gets the fault %+v, want %s", subject, hit, want)
		}
		tr.faultDone(hit)
	}
	arrives("one", "response lost at", false)
	if _, all := tr.result(); all {
		t.Error("all faults are reported as injected, and one was not")
	}
	arrives("another", "", false)
	arrives("one", "Internal instead of", true)
	arrives("one", "", false)
	if _, all := tr.result(); !all {
		t.Error("not all faults were injected")
	}
}

// The driver works on a late call after the retry has its response. Other changes wait
// for it.
func TestLateCall(t *testing.T) {
	t.Parallel()
	s := &environment{
		World: &world.World{Driver: csitest.New(csitest.Options{})}, scenario: &scenario{roles: provisioner},
		pendingFaults: map[any]*injectedFault{}, slowCalls: map[any]*slowCall{}, protections: map[*csipb.CreateVolumeRequest]protection{}, unknownOutcomes: map[string]string{},
		requestedNames: map[string]bool{}, ready: map[string]bool{},
	}
	s.trace.start(injection{at: "CreateVolume 1", fault: lateFault, retryFault: errorInstead(codes.InvalidArgument)})
	first, second := &csipb.CreateVolumeRequest{Name: "one"}, &csipb.CreateVolumeRequest{Name: "one"}
	working := make(chan struct{})
	given, cancel := context.WithCancel(t.Context())
	go func() {
		_ = s.beforeCall(given, csi.CreateVolume, first) // It succeeds in the end.
		close(working)
	}()
	cancel()
	for isLate := false; !isLate; {
		s.mu.Lock()
		isLate = len(s.slowCalls) > 0
		s.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	if err := s.beforeCall(t.Context(), csi.CreateVolume, &csipb.CreateVolumeRequest{Name: "another"}); err != nil {
		t.Errorf("another call fails: %v", err)
	}
	select {
	case <-working:
		t.Fatal("the work is done before the retry")
	default:
	}
	if err := s.beforeCall(t.Context(), csi.CreateVolume, second); status.Code(err) != codes.InvalidArgument {
		t.Errorf("the retry ends with %v", err)
	}
	deleting := make(chan struct{})
	go func() {
		_ = s.beforeCall(t.Context(), csi.DeleteVolume, &csipb.DeleteVolumeRequest{VolumeId: "volume-1"}) // It gets no fault.
		close(deleting)
	}()
	<-working
	select {
	case <-deleting:
		t.Error("the next change did not wait")
	default:
	}
	if _, err := s.afterCall(given, csi.CreateVolume, first, &csipb.CreateVolumeResponse{Volume: &csipb.Volume{}}, nil); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the late call ends with %v", err)
	}
	<-deleting
}
