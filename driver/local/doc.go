// Package local is a CSI driver (spec 1.13) for volumes that are files on one
// machine: sparse images, used through loop devices as ext4, XFS or raw devices.
//
// This package speaks the protocol: it checks requests, calls the store
// (package volume) and the node's work (package stage), and puts their errors
// into gRPC codes in one place, code. What it offers follows from Options: with
// Attach its volumes are published to one of several nodes of the machine.
package local
