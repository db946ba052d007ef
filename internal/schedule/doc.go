// Package schedule takes snapshots of claims on the schedule of SnapshotSchedules, and deletes
// expired snapshots.
//
//	SnapshotSchedule ──▶ run recorded ──▶ a VolumeSnapshot for each claim ──▶ ready ──▶ delete expired ones
//	                     (status.run)     (at most maxConcurrent at a time)
//
// A run is recorded in the status before its first snapshot is created. The name of a snapshot
// is derived from the schedule, the claim and the run. So after a crash, the next process
// creates the missing snapshots, and none twice:
//   - After a crash before the record is written, the run is still due.
//   - After a crash during the run, the run is incomplete. The claims without a snapshot of
//     the run get one.
//   - After a crash behind the last snapshot, the next process only records that the run is
//     complete.
//
// The record is written with the resourceVersion of the schedule that was read, so two
// processes cannot start the same run twice.
//
// Before the controller starts a run, completes a trigger or deletes a snapshot, it reads the
// state from the API server and decides again. During a run it creates snapshots according to
// the cache, if the cache has all snapshots that this process created. Their names prevent
// duplicates.
package schedule
