// Package attach makes volumes available on nodes: VolumeAttachment →
// ControllerPublishVolume → status; a deleted VolumeAttachment →
// ControllerUnpublishVolume → the object goes.
//
// The VolumeAttachment is the record. Before the driver is asked it gets our
// finalizer and, as annotations, everything that a detachment needs: volume,
// node and secret, as they are given to the driver. So what was attached is
// what will be detached, whether or not the PersistentVolume, the Node, the
// CSINode or the class are there then, or mean something else by that time.
//
// Attaching and detaching have queues and workers of their own, so that a
// thousand detachments do not hold up one attachment; one VolumeAttachment is
// worked on by one of them at a time.
//
// A driver without the capability PUBLISH_UNPUBLISH_VOLUME has nothing to do:
// its VolumeAttachments are attached as soon as they are seen.
package attach
