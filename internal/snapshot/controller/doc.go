// Package controller creates contents for the snapshots that users ask for,
// VolumeSnapshots or VolumeGroupSnapshots, binds the two to each other, and deletes both.
// It is role snapshot-controller, one for all drivers of a cluster. The csi-snapshotter of
// each driver (package snapshot/sidecar) works on the contents; this package copies the
// status that it writes to the users' objects.
//
// The reconciler observes a snapshot (observe.go), decides what to do next (decide.go,
// without I/O), and executes that: create.go, status.go or delete.go. The name of a
// content follows from the UID of its snapshot, and creations and deletions are
// conditional. So any step may be repeated, by any replica. Claims are protected by
// package claimprotection. Contents whose snapshot is gone are deleted by orphans.go,
// and contents whose node is gone by stranded.go.
//
// The reconciler is the same for both kinds of snapshots. A [SnapshotKind] has what
// differs: that of single snapshots is in single.go, that of groups in package
// groupsnapshot/controller. The sidecar has an interface of its own for its two kinds of
// contents, because it needs other things of them: the calls to the driver.
package controller
