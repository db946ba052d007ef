// Package snapshot has what snapshot-controller and csi-snapshotter share, for single
// snapshots and for group snapshots: annotations and finalizers, the parameters of classes,
// and how errors are reported to users.
//
// Package controller (role snapshot-controller) creates contents for the snapshots that users
// create. Package sidecar (role csi-snapshotter) creates the snapshots of the contents at a
// driver. Each also works with upstream's version of the other, so all annotations, labels
// and finalizers are upstream's.
package snapshot
