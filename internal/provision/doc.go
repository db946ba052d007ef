// Package provision makes volumes for claims: PersistentVolumeClaim →
// CreateVolume → PersistentVolume.
//
//	claim ──▶ intent ──▶ volume at the driver ──▶ PersistentVolume ──▶ (intent goes)
//	          on record                            claimRef: the claim
//
// The intent is a Lease in the controller's own namespace that holds the whole
// CreateVolume request and all that the PersistentVolume will say. It is
// written before the driver is asked and goes when the PersistentVolume is
// there. Whoever finds one, after whatever death, repeats exactly that request
// until the driver has answered, and publishes what came of it, also when the
// claim, its class or its node are gone by then: a volume that nobody wants any
// more is published too, found Released, and reclaimed like any other. So one
// path serves all cases and nothing is ever deleted on a guess.
//
// It is a Lease, and not an annotation of the claim, because tenants can write
// their claims: a request that is repeated must not be theirs to change. And
// because the rights that csi-provisioner is deployed with include Leases.
//
// With one provisioner on each node (node.go) there still is one intent for each
// claim, which belongs to a node. Nobody else carries it out: another node's
// driver would make another volume.
package provision
