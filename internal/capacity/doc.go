// Package capacity publishes the capacity of the driver for the scheduler (KEP-1472):
// StorageClass × topology segment → GetCapacity → CSIStorageCapacity.
//
//	Nodes, CSINodes ──▶ segments ─┐
//	                              ├─▶ pairs ──▶ GetCapacity ──▶ one object each
//	StorageClasses ───────────────┘
//
// The key of the work queue is a pair of a class and a segment, so that a pair is queued
// only once. A pair is reconciled when
//   - its class or its segment is added or removed,
//   - a volume in the segment is added, removed or expanded,
//   - a claim was scheduled to the segment and found no capacity there,
//   - its object is deleted, and
//   - once in every poll interval, with a different offset for each pair.
//
// The controller writes objects only when they change, and deletes obsolete ones.
// Objects have the labels of the external-provisioner (csi-provisioner), so that either
// program can take over the objects of the other.
package capacity
