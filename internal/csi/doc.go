// Package csi is the port to a CSI driver: the one place where requests leave
// for the driver and where its answers and errors are judged.
//
// A [DriverOptions] is shared by every controller of the process. It keeps one
// connection that heals itself, sends at most one call about a volume or a
// snapshot at a time, gives each call its own deadline, checks what the driver
// answers before anyone trusts it, measures every call, and keeps secrets out
// of logs and errors.
//
// The calls that cannot be undone (DeleteVolume, DeleteSnapshot,
// DeleteVolumeGroupSnapshot, ControllerUnpublishVolume) are methods of
// [ConditionalDriver] only, which [Driver.WithPrecondition] returns: each is sent
// when it has its lock and its slot and its precondition still holds. Where there is
// nothing to check, the caller says so with [Unconditional].
//
// What a failed call means for the next one is its [Outcome]; [OutcomeOf]
// reads it from any error that this package returned.
package csi
