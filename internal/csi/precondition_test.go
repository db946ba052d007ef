package csi_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

// A call that waits for its turn is not sent if what it rests on has changed
// meanwhile: its precondition is checked when the turn has come, and not before.
func TestAPreconditionIsCheckedWhenTheTurnHasCome(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := ready(t, fake)
	id := made(t, driver, 1)[0]
	slow := fake.Block(csi.ControllerGetVolume)
	first := make(chan error, 1)
	go func() {
		_, err := driver.ControllerGetVolume(t.Context(), id)
		first <- err
	}()
	<-slow.Arrived()

	var unwanted atomic.Bool
	deleting := make(chan error, 1)
	go func() {
		deleting <- driver.WithPrecondition(func(context.Context) error {
			if unwanted.Load() {
				return csi.ErrPreconditionFailed
			}
			return nil
		}).DeleteVolume(t.Context(), &csipb.DeleteVolumeRequest{VolumeId: id})
	}()
	for range 10 { // The deletion waits by now, or begins to later, which is as good.
		if _, err := driver.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	unwanted.Store(true)
	slow.Release()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if err := <-deleting; !errors.Is(err, csi.ErrPreconditionFailed) {
		t.Errorf("got %v, want an error that says that the call is not wanted", err)
	}
	if n := fake.Calls(csi.DeleteVolume); n != 0 {
		t.Errorf("DeleteVolume was sent %d times", n)
	}
}

// What a precondition fills into its request is sent, and only the view that it
// was given to has it.
func TestAPreconditionMayCompleteItsRequest(t *testing.T) {
	fake := csitest.New(csitest.Options{Record: true})
	driver := ready(t, fake)
	req := &csipb.DeleteVolumeRequest{VolumeId: "v"}
	err := driver.WithPrecondition(func(context.Context) error {
		req.Secrets = map[string]string{"key": "fresh"}
		return nil
	}).DeleteVolume(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := driver.DeleteVolume(t.Context(), &csipb.DeleteVolumeRequest{VolumeId: "other"}); err != nil {
		t.Fatal(err)
	}
	var secrets []string
	for _, call := range fake.Log() {
		if r, ok := call.Request.(*csipb.DeleteVolumeRequest); ok {
			secrets = append(secrets, r.GetSecrets()["key"])
		}
	}
	if len(secrets) != 2 || secrets[0] != "fresh" || secrets[1] != "" {
		t.Errorf("the driver was given %q", secrets)
	}
}
