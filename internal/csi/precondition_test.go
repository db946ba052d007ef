package csi_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

// A call that waits for another one is not sent if its reason is gone meanwhile:
// the precondition is checked right before the call is sent, and not earlier.
func TestAPreconditionIsCheckedRightBeforeTheCallIsSent(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connectReady(t, fake)
	id := createVolumes(t, driver, 1)[0]
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
	for range 10 { // The deletion waits by now, or will soon, which is as good.
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
		t.Errorf("got %v, want ErrPreconditionFailed", err)
	}
	if n := fake.Calls(csi.DeleteVolume); n != 0 {
		t.Errorf("DeleteVolume was sent %d times", n)
	}
}

// The changes of a precondition to its request are sent, and only with its own
// calls.
func TestAPreconditionMayCompleteItsRequest(t *testing.T) {
	fake := csitest.New(csitest.Options{Record: true})
	driver := connectReady(t, fake)
	req := &csipb.DeleteVolumeRequest{VolumeId: "v"}
	err := driver.WithPrecondition(func(context.Context) error {
		req.Secrets = map[string]string{"key": "fresh"}
		return nil
	}).DeleteVolume(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := driver.WithPrecondition(csi.Unconditional).DeleteVolume(t.Context(), &csipb.DeleteVolumeRequest{VolumeId: "other"}); err != nil {
		t.Fatal(err)
	}
	var secrets []string
	for _, call := range fake.Log() {
		if r, ok := call.Request.(*csipb.DeleteVolumeRequest); ok {
			secrets = append(secrets, r.GetSecrets()["key"])
		}
	}
	if len(secrets) != 2 || secrets[0] != "fresh" || secrets[1] != "" {
		t.Errorf("the driver got secrets %q", secrets)
	}
}

// The compiler rejects a destructive call without a precondition, because only
// ConditionalDriver has these methods. The test also covers calls that a later version
// of the specification adds.
func TestDestructiveCallsNeedAPrecondition(t *testing.T) {
	driver, conditional := reflect.TypeFor[*csi.Driver](), reflect.TypeFor[*csi.ConditionalDriver]()
	destructive := 0
	for _, service := range []reflect.Type{reflect.TypeFor[csipb.ControllerClient](), reflect.TypeFor[csipb.GroupControllerClient]()} {
		for i := range service.NumMethod() {
			name := service.Method(i).Name
			if !strings.HasPrefix(name, "Delete") && name != "ControllerUnpublishVolume" {
				continue
			}
			destructive++
			if _, found := driver.MethodByName(name); found {
				t.Errorf("Driver has %s, which needs no precondition there", name)
			}
			if _, found := conditional.MethodByName(name); !found {
				t.Errorf("ConditionalDriver does not have %s", name)
			}
		}
	}
	if destructive != conditional.NumMethod() {
		t.Errorf("ConditionalDriver has %d methods, want just the %d destructive calls", conditional.NumMethod(), destructive)
	}
}

func TestNoDestructiveCallIsSentIfItsPreconditionFails(t *testing.T) {
	fake := csitest.New(csitest.Options{})
	driver := connectReady(t, fake).WithPrecondition(func(context.Context) error { return csi.ErrPreconditionFailed })
	for method, err := range map[csi.Method]error{
		csi.DeleteVolume:              driver.DeleteVolume(t.Context(), &csipb.DeleteVolumeRequest{VolumeId: "v"}),
		csi.ControllerUnpublishVolume: driver.ControllerUnpublishVolume(t.Context(), &csipb.ControllerUnpublishVolumeRequest{VolumeId: "v"}),
		csi.DeleteSnapshot:            driver.DeleteSnapshot(t.Context(), &csipb.DeleteSnapshotRequest{SnapshotId: "s"}),
		csi.DeleteVolumeGroupSnapshot: driver.DeleteVolumeGroupSnapshot(t.Context(), &csipb.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: "g"}),
	} {
		if !errors.Is(err, csi.ErrPreconditionFailed) {
			t.Errorf("%s: got %v, want an error that wraps the precondition's", method, err)
		}
		if n := fake.Calls(method); n != 0 {
			t.Errorf("%s was sent %d times", method, n)
		}
	}
}

func TestAPreconditionIsNeverNil(t *testing.T) {
	driver := connectReady(t, csitest.New(csitest.Options{}))
	defer func() {
		if recover() == nil {
			t.Error("a nil precondition was accepted")
		}
	}()
	driver.WithPrecondition(nil)
}
