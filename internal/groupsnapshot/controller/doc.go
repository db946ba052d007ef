// Package controller is the kind of VolumeGroupSnapshots, for the engine of package
// snapshot/controller: part of role snapshot-controller. It knows which claims a group is
// of (sources.go), and makes the VolumeSnapshots of its members of a group that is
// cut (members.go), which go on from there as any other snapshot does.
//
// All names follow from the UID of the group, and creations and deletions are
// conditional, so that it does not matter how often, or by whom, a step is
// repeated.
package controller
