// Package source resolves and checks what a claim's volume is to be filled from:
// a VolumeSnapshot to restore or a PersistentVolumeClaim to clone, in the claim's
// namespace or in another one that grants it (ReferenceGrant, KEP-3294).
//
// [Of] reads the source that a claim names, a [Resolver] reads its objects, and
// [Resolved.ContentSource] checks them and returns the content source of the
// CreateVolume request (CSI spec, CreateVolume). The package writes nothing.
package source
