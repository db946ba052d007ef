// Package attach attaches volumes to nodes and detaches them, as upstream's
// csi-attacher does. For a VolumeAttachment it calls ControllerPublishVolume and
// writes the status. For a deleted one it calls ControllerUnpublishVolume and
// removes the finalizer.
//
// The VolumeAttachment is also the record. Before the driver is called, the
// controller adds its finalizer and, as annotations, everything that a detachment
// sends to the driver: the volume's handle, the node ID and the secret. So exactly
// what was attached is detached, even if the PersistentVolume, the Node, the CSINode
// or the class are gone by then or have changed.
//
// Attaching and detaching have separate queues and workers, so that a thousand
// detachments do not delay one attachment. Only one of them works on a
// VolumeAttachment at a time.
//
// A driver without the capability PUBLISH_UNPUBLISH_VOLUME does not need to be called:
// its VolumeAttachments are marked as attached at once.
package attach
