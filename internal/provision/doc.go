// Package provision creates volumes for claims: PersistentVolumeClaim →
// CreateVolume → PersistentVolume.
//
//	claim ──▶ pending operation ──▶ volume at the driver ──▶ PersistentVolume
//	          (a Lease)                                      (the Lease is deleted)
//
// A pending operation is the record of a CreateVolume call: the whole request and
// everything that the PersistentVolume will contain. The provisioner records it before
// it calls the driver, and deletes the record once the PersistentVolume exists. Whichever
// replica finds a record after a crash repeats exactly that request until the outcome
// is known, and creates the PersistentVolume, even if the claim, its class or its node
// are gone by then: the PersistentVolume of a deleted claim becomes Released and is
// reclaimed like any other. So there is one path for all cases, and nothing is deleted
// on a guess.
//
// # Where to find things
//
// Every rule about a claim is in one of two files:
//
//   - decide.go: what to do about a claim, and when. It does no I/O.
//   - response.go: what to do about a response other than a usable volume.
//
// reconcile.go reads from top to bottom: observe, decide, act. observe.go reads the
// state, plan.go builds the request and the PersistentVolume, create.go calls the driver
// and creates the PersistentVolume. watches.go starts the reconcile of claims that wait
// for something.
//
// The packages below know nothing of the reconciler:
//
//   - pending: records, finds and deletes pending operations.
//   - source: which snapshot or claim a volume is to be filled from, and may it be?
//   - protection: adds finalizers to sources, and removes them when no operation needs
//     them.
//   - placement: which topology requirement does a volume have?
//   - pernode: with one provisioner per node, which claims are this node's?
package provision
