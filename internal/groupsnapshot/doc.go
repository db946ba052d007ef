// Package groupsnapshot has what snapshot-controller and csi-snapshotter share for group
// snapshots: snapshots of several claims that are taken at the same moment. It implements
// their ContentKind for package snapshot/sidecar and finds the served version of the API.
// Package controller below it handles VolumeGroupSnapshots.
package groupsnapshot
