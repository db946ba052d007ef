package csi_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

func TestEveryAddressReachesTheDriver(t *testing.T) {
	path := csitest.New(csitest.Options{}).Serve(t)
	for _, address := range []string{path, "unix://" + path} {
		driver := connectTo(t, csi.Options{Address: address})
		if ready, err := driver.Probe(t.Context()); err != nil || !ready {
			t.Errorf("%s: ready %v, %v", address, ready, err)
		}
	}
	if _, err := csi.Connect(t.Context(), csi.Options{Address: "tcp://127.0.0.1:1"}); err == nil {
		t.Error("an address that is not a socket was accepted")
	}
}

func TestCallsFailWhileTheDriverIsAwayAndWorkWhenItIsBack(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connectReady(t, fake)
	for range 3 {
		fake.Crash()
		_, err := driver.CreateVolume(t.Context(), volumeRequest("a", 1<<20))
		wantOutcome(t, err, csi.OutcomeUnknown)
		if status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
		if err := fake.Restart(); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			_, err := driver.CreateVolume(t.Context(), volumeRequest("a", 1<<20))
			return err
		})
	}
	if got := len(fake.Volumes()); got != 1 {
		t.Errorf("%d volumes came out of one name", got)
	}
}

// Capabilities are read again without a call by a user of the driver.
func TestInfoFollowsARestartedDriver(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connectReady(t, fake)
	if !driver.Info().Has(csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME) {
		t.Fatal("the first version cannot expand")
	}
	fake.Crash()
	fake.Reconfigure(func(o *csitest.Options) {
		o.Version = "2"
		o.Controller = []csipb.ControllerServiceCapability_RPC_Type{csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}
	})
	fake.FailNext(csi.GetPluginInfo, codes.Internal, "not yet") // the first attempt fails
	if err := fake.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if got := driver.Info().VendorVersion; got != "2" {
			return fmt.Errorf("got version %q", got)
		}
		return nil
	})
	if driver.Info().Has(csipb.ControllerServiceCapability_RPC_EXPAND_VOLUME) {
		t.Error("the second version still has EXPAND_VOLUME")
	}
}

// The other driver would create volumes that nobody looks after, and answer that it has none
// of those to delete.
func TestNoCallReachesAnotherDriverBehindTheSocket(t *testing.T) {
	fake := csitest.New(csitest.Options{Name: "one.example.com", Record: true})
	driver := connectReady(t, fake)
	fake.Crash()
	fake.Reconfigure(func(o *csitest.Options) { o.Name = "two.example.com" })
	calling, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { // Calls that wait for a connection must not be sent over one to the other driver.
		defer close(ended)
		for calling.Err() == nil {
			_, _ = driver.CreateVolume(calling, volumeRequest("a", 1<<20))
		}
	}()
	if err := fake.Restart(); err != nil {
		t.Fatal(err)
	}
	for name, call := range secretCalls() {
		eventually(t, func() error {
			err := call(t.Context(), driver)
			wantOutcome(t, err, csi.OutcomeUnknown)
			if csi.Responded(err) || !strings.Contains(err.Error(), `was "one.example.com" and is now "two.example.com"`) {
				return fmt.Errorf("%s: got %w", name, err)
			}
			return nil
		})
	}
	eventually(t, func() error {
		if fake.Calls(csi.GetPluginInfo) < 3 {
			return errors.New("it is not asked for its name again")
		}
		return nil
	})
	stop()
	<-ended
	for _, call := range fake.Log() {
		if call.Method != csi.Probe && call.Method != csi.GetPluginInfo && call.Method != csi.GetPluginCapabilities &&
			call.Method != csi.ControllerGetCapabilities && call.Method != csi.GroupControllerGetCapabilities {
			t.Errorf("the other driver got %s", call.Method)
		}
	}
	if got := driver.Info().Name; got != "one.example.com" {
		t.Errorf("the driver is now called %q", got)
	}
	fake.Crash()
	fake.Reconfigure(func(o *csitest.Options) { o.Name = "one.example.com" })
	if err := fake.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := driver.CreateVolume(t.Context(), volumeRequest("a", 1<<20))
		return err
	})
}

// A driver may lose capabilities by an upgrade. Decisions by the old ones would call it in
// vain, or wait for what it no longer does.
func TestNoCallIsSentBeforeTheCapabilitiesAreReadAgain(t *testing.T) {
	fake := csitest.New(csitest.Options{Record: true})
	driver := connectReady(t, fake)
	fake.Crash()
	before := len(fake.Log())
	if err := fake.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := driver.CreateVolume(t.Context(), volumeRequest("a", 1<<20))
		return err
	})
	var methods []csi.Method
	for _, call := range fake.Log()[before:] {
		methods = append(methods, call.Method)
	}
	want := []csi.Method{
		csi.GetPluginInfo, csi.GetPluginCapabilities, csi.ControllerGetCapabilities, csi.GroupControllerGetCapabilities, csi.CreateVolume,
	}
	if !slices.Equal(methods, want) {
		t.Errorf("the calls are %v, want %v", methods, want)
	}
}

// What a driver does on its end is not cut off: the outcome would be unknown.
func TestCallsInProgressEndWhenTheDriverStopsOrderly(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connectReady(t, fake)
	blocked := fake.Block(csi.CreateVolume)
	result := make(chan error, 1)
	go func() {
		_, err := driver.CreateVolume(t.Context(), volumeRequest("a", 1<<20))
		result <- err
	}()
	waitFor(t, blocked.Arrived())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		fake.Stop()
	}()
	eventually(t, func() error {
		if _, err := driver.Probe(t.Context()); err == nil {
			return errors.New("the driver still takes calls")
		}
		return nil
	})
	blocked.Release()
	if err := <-result; err != nil {
		t.Errorf("the call in progress failed: %v", err)
	}
	<-stopped
}

func TestWaitReady(t *testing.T) {
	tests := map[string]struct {
		prepare func(*csitest.Driver)
		probes  int    // at least
		failure string // part of the error; empty is success
	}{
		"a driver without a ready field is ready": {func(*csitest.Driver) {}, 1, ""},
		"a driver that is not ready is probed again": {func(fake *csitest.Driver) {
			left := 1
			changeResponse(fake, csi.Probe, func(r *csipb.ProbeResponse) { r.Ready = wrapperspb.Bool(left <= 0); left-- })
		}, 2, ""},
		"a driver that times out is probed again": {func(fake *csitest.Driver) {
			fake.LoseResponse(csi.Probe)
		}, 2, ""},
		"a driver that is unavailable is probed again": {func(fake *csitest.Driver) {
			fake.FailNext(csi.Probe, codes.Unavailable, "shutting down")
		}, 2, ""},
		"an unhealthy driver is an error": {func(fake *csitest.Driver) {
			fake.FailNext(csi.Probe, codes.FailedPrecondition, "the array is gone")
		}, 1, "not healthy, see its own log: driver at"},
		"a driver without a name is an error": {func(fake *csitest.Driver) {
			fake.FailNext(csi.GetPluginInfo, codes.Internal, "who knows")
		}, 1, "GetPluginInfo: Internal: who knows"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := csitest.New(csitest.Options{})
			tt.prepare(fake)
			driver := connect(t, fake)
			info, err := driver.WaitReady(t.Context())
			if tt.failure == "" && (err != nil || info.Name != "csitest.holdfast.io") {
				t.Errorf("got %+v, %v", info, err)
			}
			if tt.failure != "" && (err == nil || !strings.Contains(err.Error(), tt.failure)) {
				t.Errorf("got error %v, want %q", err, tt.failure)
			}
			if got := fake.Calls(csi.Probe); got < tt.probes {
				t.Errorf("it was probed %d times, want %d", got, tt.probes)
			}
		})
	}
}

func TestWaitReadyWaitsForASocketThatAppearsLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	driver := connectTo(t, csi.Options{Address: path})
	done := make(chan error)
	go func() {
		_, err := driver.WaitReady(t.Context())
		done <- err
	}()
	fake := csitest.New(csitest.Options{})
	if err := fake.Listen(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Crash)
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(waitTimeout):
		t.Error("WaitReady did not return")
	}
}

func TestWaitReadyEndsWithItsContext(t *testing.T) {
	driver := connectTo(t, csi.Options{Address: filepath.Join(t.TempDir(), "nobody")})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := driver.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// A socket file that a crash left must not look like a driver that hangs: calls fail at
// once although their timeout is long.
func TestCallsToADeadSocketFailAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	driver := connectTo(t, csi.Options{Address: path, Timeout: time.Hour})
	_, err = driver.Probe(t.Context())
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestACallAfterCloseFails(t *testing.T) {
	driver, err := csi.Connect(t.Context(), csi.Options{Address: csitest.New(csitest.Options{}).Serve(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := driver.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = driver.Probe(t.Context())
	wantOutcome(t, err, csi.OutcomeUnknown)
}
