// Package schedule creates objects on a schedule, and deletes expired ones: for SnapshotSchedules
// a VolumeSnapshot of each selected claim, for CheckpointSchedules a Checkpoint of each selected
// pod. Everything that does not depend on the kind of the schedule is written once; a kind (see
// kind.go) says what its targets and its children are:
//
//	schedule ──▶ run recorded ──▶ a child for each target ──▶ ready ──▶ delete expired ones
//	             (status.run)     (at most maxConcurrent at a time)
//
//	kind                target                 child           history, for retention
//	SnapshotSchedule    PersistentVolumeClaim  VolumeSnapshot  of the claim
//	CheckpointSchedule  Pod                    Checkpoint      of the workload
//
// A run is recorded in the status before its first child is created. The name of a child is
// derived from the schedule, the target and the run. So after a crash, the next process creates
// the missing children, and none twice:
//   - After a crash before the record is written, the run is still due.
//   - After a crash during the run, the run is incomplete. The targets without a child of
//     the run get one.
//   - After a crash behind the last child, the next process only records that the run is
//     complete.
//
// The record is written with the resourceVersion of the schedule that was read, so two
// processes cannot start the same run twice.
//
// Before the controller starts a run, completes a trigger or deletes a child, it reads the
// state from the API server and decides again. During a run it creates children according to
// the cache, if the cache has all children that this process created. Their names prevent
// duplicates.
package schedule
