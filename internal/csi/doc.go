// Package csi is the client of a CSI driver. All calls to the driver go through it.
//
// A process shares one [Driver] among its controllers. The Driver
//   - keeps one connection open and reconnects by itself,
//   - sends at most one call per volume or snapshot at a time, and adapts the number of
//     concurrent calls to what the driver can do,
//   - gives each call its own timeout,
//   - checks the driver's responses,
//   - measures calls, and
//   - removes secrets from logs and errors.
//
// The calls that cannot be undone (DeleteVolume, DeleteSnapshot,
// DeleteVolumeGroupSnapshot, ControllerUnpublishVolume) are methods of
// [ConditionalDriver] only, which [Driver.WithPrecondition] returns: each is sent when
// it has its lock and its slot and its precondition still holds. Where there is nothing
// to check, the caller passes [Unconditional].
//
// The [Outcome] of a failed call is what it means for the next one. [OutcomeOf] returns
// the outcome of any error of this package.
package csi
