// Package controller turns what users ask for, VolumeSnapshots or groups of them, into
// contents and binds the two: the work of role snapshot-controller, one for all
// drivers of a cluster. The driver's half (package sidecar) does what contents ask for;
// what it writes there comes back to the users' objects here.
//
// For each snapshot the engine observes (the cache), decides (pure), does one thing
// after the other, and reports. A snapshot's content has a name that follows from
// the snapshot's UID, and its creation and deletion are conditional, so that it does
// not matter how often, or by whom, a step is repeated.
//
// The engine is the same for both kinds of snapshots; what they do not have in
// common is a [SnapshotKind]. The one of single snapshots is here (single.go), with what only
// they need: their claims are kept until they are cut (claims.go). The one of groups
// is in package groupsnapshot/controller.
package controller
