package csi

import (
	"context"
	"errors"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
)

// A Precondition returns nil if a call is still wanted. A call may wait for
// minutes, for other calls about its volume and for a slow driver, and the reason
// for it may be gone since. So a precondition reads from the API server, not from a
// cache. It may also complete the request of its call with what it has read.
type Precondition func(context.Context) error

// ErrPreconditionFailed is what a [Precondition] returns, wrapped or not, if the
// call is not wanted any more.
var ErrPreconditionFailed = errors.New("it is not wanted any more")

// Unconditional is the [Precondition] that always holds. It is for objects that
// nobody can use yet, such as a snapshot that the driver has just created with an
// unusable response.
func Unconditional(context.Context) error { return nil }

// ConditionalDriver sends the calls that cannot be undone: those that delete data, and
// the one that detaches. It checks its [Precondition] when a call has the lock of its
// key and a slot at the driver, right before the call is sent. If the precondition
// fails, the call is not sent and its error wraps the precondition's.
type ConditionalDriver struct{ driver *Driver }

// WithPrecondition returns the destructive calls of the driver, with a
// precondition. They are methods of no other type, so that none can be sent without
// one. It panics if the precondition is nil; use [Unconditional] if there is
// nothing to check.
func (d *Driver) WithPrecondition(holds Precondition) *ConditionalDriver {
	if holds == nil {
		panic("csi: WithPrecondition(nil): a destructive call needs a precondition, or csi.Unconditional")
	}
	return &ConditionalDriver{&Driver{link: d.link, timeout: d.timeout, precondition: holds}}
}

// DeleteVolume deletes a volume; one that is gone is a success ("DeleteVolume"). It
// waits for other calls about the id.
func (c *ConditionalDriver) DeleteVolume(ctx context.Context, req *csipb.DeleteVolumeRequest) error {
	_, err := send(ctx, c.driver, operation{DeleteVolume, volumeID(req.GetVolumeId())}, c.driver.controller.DeleteVolume, req)
	return err
}

// ControllerUnpublishVolume detaches a volume from a node; one that is not attached is
// a success ("ControllerUnpublishVolume"). It waits for other calls about the volume,
// on whichever node.
func (c *ConditionalDriver) ControllerUnpublishVolume(ctx context.Context, req *csipb.ControllerUnpublishVolumeRequest) error {
	_, err := send(ctx, c.driver, operation{ControllerUnpublishVolume, volumeID(req.GetVolumeId())}, c.driver.controller.ControllerUnpublishVolume, req)
	return err
}

// DeleteSnapshot deletes a snapshot; one that is gone is a success ("DeleteSnapshot").
// It waits for other calls about the id.
func (c *ConditionalDriver) DeleteSnapshot(ctx context.Context, req *csipb.DeleteSnapshotRequest) error {
	_, err := send(ctx, c.driver, operation{DeleteSnapshot, snapshotID(req.GetSnapshotId())}, c.driver.controller.DeleteSnapshot, req)
	return err
}

// DeleteVolumeGroupSnapshot deletes a group with all its members; one that is gone is
// a success ("DeleteVolumeGroupSnapshot"). The request names the members too: some
// drivers need them, and others reject a list that is not theirs. It waits for other
// calls about the id.
func (c *ConditionalDriver) DeleteVolumeGroupSnapshot(ctx context.Context, req *csipb.DeleteVolumeGroupSnapshotRequest) error {
	_, err := send(ctx, c.driver, operation{DeleteVolumeGroupSnapshot, groupID(req.GetGroupSnapshotId())}, c.driver.group.DeleteVolumeGroupSnapshot, req)
	return err
}
