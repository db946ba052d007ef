// Package resize makes volumes larger and gives them other attributes: what a
// claim requests and what its VolumeAttributesClass says.
//
//	claim: request ──▶ target on record ──▶ volume at the driver ──▶ PersistentVolume ──▶ claim: capacity
//	                   (claim's status)                                                   (or: the node's turn)
//
// One reconciler does both for a claim, one call after the other, so that they
// cannot disturb each other.
//
// What a call asks for is on record in the claim's status before the driver is
// asked, in the fields that Kubernetes has for it (KEP-1790, KEP-3751). Whether
// the last call has surely failed is on record too, as a condition: ControllerResizeError
// beside ControllerResizeInProgress, ModifyVolumeError beside InProgress. Without
// the condition the call may be under way, or may have done its work, whoever
// made it: the same is asked for again until there is an answer, whatever the
// claim wants by then. With it the claim's present wish counts. So the condition
// is taken off before a call that follows a refusal.
//
// A refusal says nothing about an earlier call that was not answered. That there
// was one stays on record until the driver has done something, as the reason of the
// condition Resizing or ModifyingVolume: see doubt.
//
// Nothing in memory matters after a restart:
//   - that a call has surely failed is the condition;
//   - that a volume was in use is the condition's reason, FailedPrecondition;
//   - since when a request is infeasible is the condition's time;
//   - how long the pauses between retries have become, and which pods are being
//     watched, is lost: the first try after a restart comes at once.
package resize
