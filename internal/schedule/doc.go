// Package schedule takes snapshots of claims when a SnapshotSchedule says so, and
// removes those that are no longer to be kept.
//
//	SnapshotSchedule ──▶ run on record ──▶ a VolumeSnapshot for each claim ──▶ ready ──▶ older ones go
//	                     (status.run)      (whoever's turn it is)
//
// A run is on record, by its time, before the first of its snapshots. The name of
// a snapshot follows from schedule, claim and that time. So a successor with an
// empty memory makes the snapshots that are missing and none twice:
//   - who dies before the record has begun nothing: the run is still due;
//   - who dies after it leaves a run that is not complete: the claims that have
//     no snapshot with its name get one;
//   - who dies after the last snapshot leaves a run whose completion is written
//     down by the next, which finds nothing else to do.
//
// The record is written on the condition that nobody has changed the schedule
// since it was seen, so two processes cannot begin the same run twice.
//
// What is found in the cache is looked up at the API server itself, and decided
// again, before a run begins, a trigger is answered or a snapshot is removed. While
// a run goes on, snapshots are made by what the cache says, if it has all that this
// process has made: their names see to it that none is made twice.
package schedule
