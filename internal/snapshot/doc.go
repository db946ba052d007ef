// Package snapshot is what the two halves of the work on snapshots agree upon,
// for single snapshots and for those of groups: the strings by which they hand
// objects to each other, the classes' parameters, and how errors are told.
//
// The cluster's half (package controller, role snapshot-controller) turns what users
// ask for into contents; the driver's half (package sidecar, role csi-snapshotter)
// turns contents into snapshots at a driver. Each works with the other half of
// the programs that they replace, so all strings are theirs.
package snapshot
