// Package protection keeps sources (VolumeSnapshots and PersistentVolumeClaims) from
// disappearing while volumes are being filled from them.
//
// A source gets a finalizer when a pending operation that reads it is recorded, before
// the driver is called. The finalizer is removed when no pending operation reads the
// source any more, so the end of one restore does not unprotect the others.
//
// The records of pending operations are the truth, those of all nodes. A provisioner
// that unprotects a source reads the source, then the operations, and then updates the
// source with the resourceVersion that it has read. A provisioner that protects a
// source does so after it has recorded its operation. So either the first one sees the
// other's operation, or its update comes first and the other one adds the finalizer
// again.
//
// The finalizers are those of csi-provisioner, so that either program removes what the
// other one has added.
package protection
