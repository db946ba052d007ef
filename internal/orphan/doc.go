// Package orphan finds what is in the stores of checkpoints and belongs to no Checkpoint any
// more: archives and incomplete uploads.
//
// There should be none: data are deleted before their Checkpoint goes. They are left when a
// user lets a Checkpoint go without its data, when a finalizer is removed by hand, or when a
// cluster is lost. Nothing is deleted here. A bucket may be shared with other clusters, whose
// Checkpoints this one does not know. The agent of each node reports what it finds in the
// status of its CheckpointNode and as metrics.
//
// Each agent looks into the directory of its own node. Buckets are looked into by one agent
// of the cluster only: that of the first ready CheckpointNode by name. If two agents take
// themselves for the first for a while, the same is reported twice.
package orphan
