// Package sidecar makes snapshots at a driver, follows them until they are ready,
// and deletes them there: the work of role csi-snapshotter on the contents
// (VolumeSnapshotContent, VolumeGroupSnapshotContent) of one driver.
//
// Before the driver is asked for a snapshot, its name and the parameters are on
// record at the content, together with the mark that a snapshot may exist now
// and the finalizer. A content that bears the mark does not go before the driver
// has given an answer; so nothing is left behind, whoever dies when. See
// behaviour of upstream's csi-snapshotter for the marks, which are shared with
// it and with the cluster's half.
package sidecar
