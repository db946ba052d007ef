// Package local is a CSI driver (spec 1.13) for volumes that are files on one machine:
// sparse images, used through loop devices as ext4, XFS or raw devices.
//
// This package implements the CSI services: it validates requests, calls the store
// (package volume) and the stager (package stage), and maps their errors to gRPC codes
// in one place, code. Options determine its capabilities: with Attach, volumes are
// published to one of several nodes of the machine.
package local
