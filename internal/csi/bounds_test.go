package csi_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

func TestTheMessageOfADriverIsShortened(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	fake.FailNext(csi.CreateVolume, codes.Internal, strings.Repeat("é", 30000))
	_, err := driver.CreateVolume(t.Context(), volumeRequest("a", mib))
	if err == nil {
		t.Fatal("it succeeded")
	}
	if text := err.Error(); len(text) > 1200 || !strings.HasPrefix(text, "driver ") || !strings.HasSuffix(text, "...") || !utf8.ValidString(text) {
		t.Errorf("the error has %d bytes: %.100q", len(text), text)
	}
	if text := status.Convert(errors.Unwrap(err)).Message(); len(text) > 1200 {
		t.Errorf("its cause has %d bytes", len(text))
	}
	if csi.CodeOf(err) != codes.Internal {
		t.Errorf("the code is %s", csi.CodeOf(err))
	}
}

func TestTheIdsInAnInvalidResponseAreShortened(t *testing.T) {
	bad := &csi.InvalidResponse{ID: strings.Repeat("i", 60000), Reason: strings.Repeat("r", 60000)}
	if n := len(bad.Error()); n > 1200 {
		t.Errorf("the error has %d bytes", n)
	}
}

// A response that is too large to be read is a success of the driver. gRPC reports it as
// ResourceExhausted, which means that no volume was created.
func TestAResponseThatIsTooLargeLeavesTheOutcomeUnknown(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connect(t, fake)
	changeResponse(fake, csi.CreateVolume, func(r *csipb.CreateVolumeResponse) {
		r.Volume.VolumeContext = map[string]string{"blob": strings.Repeat("x", 5*mib)}
	})
	_, err := driver.CreateVolume(t.Context(), volumeRequest("a", mib))
	wantInvalidResponse(t, err, "")
	if csi.Responded(err) {
		t.Error("it counts as a failure of the driver")
	}
}

func TestAPageOfAListHasALimitOfItsOwn(t *testing.T) {
	list := func(bytes int) (entries int, failure error) {
		fake := csitest.New(csitest.Options{})
		driver := connect(t, fake)
		createVolumes(t, driver, 1)
		changeResponse(fake, csi.ListVolumes, func(r *csipb.ListVolumesResponse) {
			r.Entries[0].Volume.VolumeContext = map[string]string{"blob": strings.Repeat("x", bytes)}
		})
		for _, err := range driver.ListVolumes(t.Context(), 0) {
			if err != nil {
				return entries, err
			}
			entries++
		}
		return entries, nil
	}
	if n, err := list(16 * mib); n != 1 || err != nil {
		t.Errorf("16 MiB, which are some ten thousand volumes: %d entries, %v", n, err)
	}
	_, err := list(33 * mib)
	wantInvalidResponse(t, err, "")
}
