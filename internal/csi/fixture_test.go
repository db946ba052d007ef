package csi_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waitTimeout limits waiting for something that must happen.
const waitTimeout = 30 * time.Second

// connect serves the fake and connects to it.
func connect(t *testing.T, fake *csitest.Driver) *csi.Driver {
	t.Helper()
	return connectTo(t, csi.Options{Address: fake.Serve(t), Timeout: waitTimeout})
}

func connectTo(t *testing.T, opts csi.Options) *csi.Driver {
	t.Helper()
	driver, err := csi.Connect(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := driver.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return driver
}

// connectReady serves the fake, connects and waits until the driver is ready.
func connectReady(t *testing.T, fake *csitest.Driver) *csi.Driver {
	t.Helper()
	driver := connect(t, fake)
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	if _, err := driver.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return driver
}

// eventually calls try until it succeeds.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	tick, end := time.NewTicker(5*time.Millisecond), time.After(waitTimeout)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("timed out: %v", err)
		}
	}
}

// waitFor waits until a blocked call has reached the driver.
func waitFor(t *testing.T, happened <-chan struct{}) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(waitTimeout):
		t.Fatal("the blocked call did not reach the driver")
	}
}

func wantOutcome(t *testing.T, err error, want csi.Outcome) {
	t.Helper()
	if err == nil {
		t.Errorf("got no error, want outcome %s", want)
	} else if got := csi.OutcomeOf(err); got != want {
		t.Errorf("got outcome %s, want %s: %v", got, want, err)
	}
}

func wantInvalidResponse(t *testing.T, err error, id string) {
	t.Helper()
	var bad *csi.InvalidResponse
	if !errors.As(err, &bad) {
		t.Fatalf("got %v, want an invalid response", err)
	}
	if bad.ID != id {
		t.Errorf("the invalid response is about %q, want %q: %v", bad.ID, id, err)
	}
	wantOutcome(t, err, csi.OutcomeUnknown)
}

func volumeRequest(name string, bytes int64) *csipb.CreateVolumeRequest {
	return &csipb.CreateVolumeRequest{
		Name:               name,
		CapacityRange:      &csipb.CapacityRange{RequiredBytes: bytes},
		VolumeCapabilities: []*csipb.VolumeCapability{oneWriter()},
	}
}

func oneWriter() *csipb.VolumeCapability {
	return &csipb.VolumeCapability{
		AccessMode: &csipb.VolumeCapability_AccessMode{Mode: csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csipb.VolumeCapability_Mount{Mount: &csipb.VolumeCapability_MountVolume{}},
	}
}

// createVolumes creates n volumes and returns their ids.
func createVolumes(t *testing.T, driver *csi.Driver, n int) []string {
	t.Helper()
	var ids []string
	for i := range n {
		volume, err := driver.CreateVolume(t.Context(), volumeRequest(fmt.Sprintf("made-%d", i), 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, volume.GetVolumeId())
	}
	return ids
}

// changeResponse changes the responses of one method.
func changeResponse[Response any](fake *csitest.Driver, method csi.Method, change func(Response)) {
	fake.SetHooks(csitest.Hooks{After: func(_ context.Context, called csi.Method, _, resp any, err error) (any, error) {
		if resp, ok := resp.(Response); ok && called == method {
			change(resp)
		}
		return resp, err
	}})
}
