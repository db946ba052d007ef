// Package pending records pending operations: CreateVolume calls that may have been
// made and whose result is not published yet.
//
// The record of an [Operation] is a Lease in the controller's namespace. A Lease and
// not an annotation of the claim, because tenants can write their claims and must
// not change a request that is repeated; and because the permissions that
// csi-provisioner is deployed with include Leases. With one provisioner per node
// each Lease belongs to a node, and only that node's provisioner resumes it: another
// node's driver would create another volume.
//
// # State in memory
//
// The records are the truth. A [Store] keeps three sets in memory, which bridge the
// time until the cache shows its own writes:
//
//   - active: claims whose operation this process is working on. The creation of
//     their Lease starts no second reconcile. It saves that reconcile, and after a
//     failed call a retry without backoff.
//   - deleted: Leases that this process has deleted and the cache may still show.
//     It saves a GET and a DELETE of the Lease when anything else about the claim
//     changes meanwhile.
//   - names: volume names that are reserved until the cache shows their Lease. It is
//     used only if names can collide because the claim's UID is truncated. Reading
//     instead would need a LIST of Leases per volume.
//
// If the process dies all three are lost, which is safe: the operation is then
// resumed from its Lease, and a resumed operation is always read from the API server.
// A fourth bridge is in the reconciler, which waits until the cache shows the
// PersistentVolume before it deletes the record. One uncached read before each
// CreateVolume would replace it, but costs one request more per volume than the
// budget that test/scale asserts.
package pending
