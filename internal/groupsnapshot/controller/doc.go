// Package controller has what package snapshot/controller needs for VolumeGroupSnapshots:
// it is part of role snapshot-controller. It finds the claims of a group (sources.go), and
// creates the VolumeSnapshots of the members of a group that is taken (members.go). These
// are then reconciled like any other snapshot.
//
// The controllers start when the CRDs of group snapshots are served. Until then [Groups]
// reads groups from the API server where claims may depend on them (uncached.go).
//
// All names follow from the UID of the group, and creations and deletions are
// conditional. So any step may be repeated, by any replica.
package controller
