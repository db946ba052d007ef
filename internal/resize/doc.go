// Package resize expands volumes to the size that their claims request, and modifies
// them to the claims' VolumeAttributesClass.
//
//	claim: request ──▶ target on record ──▶ volume at the driver ──▶ PersistentVolume ──▶ claim: capacity
//	                   (claim's status)                                                   (or: node expands)
//
// One reconciler does both for a claim, one after the other, so that the calls cannot
// interfere with each other.
//
// Before the driver is called, the target is recorded in the claim's status, in the
// fields that Kubernetes has for it (KEP-1790, KEP-3751). A condition records that the
// last call failed with a final error: ControllerResizeError with the status
// ControllerResizeInProgress, and ModifyVolumeError with the status InProgress.
// Without the condition the call may still be running or may have succeeded, whichever
// process sent it. Then the controller repeats it with the same target until the driver
// responds, even if the claim has changed by then. With the condition the claim's
// current spec applies. Therefore the condition is removed before a call that follows
// a rejection.
//
// A rejection says nothing about an earlier call whose outcome is unknown. That there
// was such a call stays on record until the driver reports success, as the reason of
// the condition Resizing or ModifyingVolume: see outcomeDoubt.
//
// All state that matters after a restart is in the claim:
//   - the condition records that a call failed with a final error;
//   - the condition's reason FailedPrecondition records that a volume was in use;
//   - the condition's time records since when a request is infeasible.
//
// Retry delays and watches on pods are lost in a restart: the first attempt comes at
// once.
package resize
