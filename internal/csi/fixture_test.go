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

// patience bounds waits for something that must happen; it is never used up
// unless it does not.
const patience = 30 * time.Second

// connect serves the fake and connects to it.
func connect(t *testing.T, fake *csitest.Driver) *csi.Driver {
	t.Helper()
	return connectTo(t, csi.Options{Address: fake.Serve(t), Timeout: patience})
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

// ready serves the fake, connects and waits until it is described.
func ready(t *testing.T, fake *csitest.Driver) *csi.Driver {
	t.Helper()
	driver := connect(t, fake)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := driver.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return driver
}

// eventually tries until there is no error.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	tick, end := time.NewTicker(5*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("still not so: %v", err)
		}
	}
}

// await waits for a slow call to arrive at the driver.
func await(t *testing.T, happened <-chan struct{}) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(patience):
		t.Fatal("the slow call did not arrive")
	}
}

func wantVerdict(t *testing.T, err error, want csi.Outcome) {
	t.Helper()
	if err == nil {
		t.Errorf("it succeeded and should have failed as %s", want)
	} else if got := csi.OutcomeOf(err); got != want {
		t.Errorf("got verdict %s, want %s: %v", got, want, err)
	}
}

func wantBad(t *testing.T, err error, id string) {
	t.Helper()
	var bad *csi.InvalidResponse
	if !errors.As(err, &bad) {
		t.Fatalf("got %v, want a bad answer", err)
	}
	if bad.ID != id {
		t.Errorf("the bad answer is about %q, want %q: %v", bad.ID, id, err)
	}
	wantVerdict(t, err, csi.OutcomeUnknown)
}

func asking(name string, bytes int64) *csipb.CreateVolumeRequest {
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

// made creates n volumes and returns their ids.
func made(t *testing.T, driver *csi.Driver, n int) []string {
	t.Helper()
	var ids []string
	for i := range n {
		volume, err := driver.CreateVolume(t.Context(), asking(fmt.Sprintf("made-%d", i), 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, volume.GetVolumeId())
	}
	return ids
}

// answering changes the answers of one method.
func answering[Answer any](fake *csitest.Driver, method csi.Method, change func(Answer)) {
	fake.SetHooks(csitest.Hooks{After: func(_ context.Context, called csi.Method, _, resp any, err error) (any, error) {
		if answer, ok := resp.(Answer); ok && called == method {
			change(answer)
		}
		return resp, err
	}})
}
