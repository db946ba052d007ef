// Package reclaim gives back what released volumes take: PersistentVolume
// Released with policy Delete → DeleteVolume → the object goes.
//
// The PersistentVolume itself is the record of what is to be done: it stays, by
// its finalizer, until the driver has said that the volume is gone. DeleteVolume
// is idempotent, so a step that may have been taken is simply taken again.
package reclaim
