// Package bind turns VolumeSnapshots into contents and binds the two: the work
// of role snapshot-controller, one for all drivers of a cluster. The driver's
// half (package cut) does what contents ask for; what it writes there comes back
// to the users' objects here.
//
// For each VolumeSnapshot: observe (the cache), decide (pure), do one thing
// after the other, report. A snapshot's content has a name that follows from the
// snapshot's UID, and its creation and deletion are conditional, so that it does
// not matter how often, or by whom, a step is repeated.
package bind
