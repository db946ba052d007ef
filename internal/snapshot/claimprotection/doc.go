// Package claimprotection keeps PersistentVolumeClaims from being deleted while
// snapshots are taken of them: it adds the finalizer
// snapshot.storage.kubernetes.io/pvc-as-source-protection, upstream's, and removes it
// when no snapshot needs the claim any more. It is part of role snapshot-controller.
//
// There is one controller for single snapshots and for group snapshots, because both
// use the same finalizer. It knows neither kind: it asks each [ClaimUser] whether it
// still needs a claim. Upstream protects claims for single snapshots only; there a
// claim that is deleted too early takes its volume away while a group snapshot of it
// is taken.
package claimprotection
