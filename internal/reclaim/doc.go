// Package reclaim deletes volumes that no claim uses any more. For a Released
// PersistentVolume with reclaim policy Delete it calls DeleteVolume and then deletes
// the object.
//
// The PersistentVolume is also the record of what is to be done: its finalizer keeps it
// until the driver has deleted the volume. DeleteVolume is idempotent, so a call with an
// unknown outcome is simply repeated.
package reclaim
