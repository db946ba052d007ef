// Package bind turns VolumeGroupSnapshots into contents, which the driver's half
// cuts, and each group that is cut into the VolumeSnapshots of its members: part
// of role snapshot-controller. It has the shape of package bind of single
// snapshots, to which members go on as any other snapshot does: observe (the
// cache), decide (pure), do one thing after the other, report.
//
// All names follow from the UID of the group, and creations and deletions are
// conditional, so that it does not matter how often, or by whom, a step is
// repeated.
package bind
