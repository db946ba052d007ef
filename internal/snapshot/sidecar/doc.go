// Package sidecar implements role csi-snapshotter. It creates snapshots at one driver, polls
// them until they are ready, and deletes them. It works on the driver's contents
// (VolumeSnapshotContent and VolumeGroupSnapshotContent), which package controller creates.
//
// [ContentKind] abstracts over the two kinds of contents and their CSI calls. [SingleKind] is
// here, that of groups is in package groupsnapshot. Package controller has its own interface,
// Kind, for the objects that users create.
//
// Before it calls CreateSnapshot, the sidecar records the name and the parameters on the
// content, together with the finalizer and upstream's being-created annotation: a snapshot
// may exist from now on. A content with this annotation is not deleted before the outcome is
// known. So no snapshot is orphaned, at whatever moment a process crashes. Upstream's
// csi-snapshotter and snapshot-controller use the same annotations.
package sidecar
