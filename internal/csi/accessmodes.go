package csi

import (
	"errors"
	"fmt"
	"slices"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-lib-utils/accessmodes"
	corev1 "k8s.io/api/core/v1"
)

// AccessMode is the CSI access mode in which a volume with these Kubernetes access
// modes is published or expanded. singleNodeMultiWriter is the driver's capability
// SINGLE_NODE_MULTI_WRITER. CSI has no mode for ReadOnlyMany with ReadWriteOnce: it is
// the first of the two, as the kubelet takes it to stage and publish the volume on the
// node. These are errors: ReadWriteOncePod with any other mode, no mode, and an unknown
// mode.
func AccessMode(modes []corev1.PersistentVolumeAccessMode, singleNodeMultiWriter bool) (csipb.VolumeCapability_AccessMode_Mode, error) {
	if len(modes) > 1 && !slices.ContainsFunc(modes, isNeitherOnceNorReadOnly) {
		modes = modes[:1]
	}
	mode, err := accessmodes.ToCSIAccessMode(modes, singleNodeMultiWriter)
	if err != nil {
		return mode, fmt.Errorf("mapping access modes %q to CSI: %w", modes, err)
	}
	return mode, nil
}

func isNeitherOnceNorReadOnly(mode corev1.PersistentVolumeAccessMode) bool {
	return mode != corev1.ReadWriteOnce && mode != corev1.ReadOnlyMany
}

// AccessModes maps each access mode of a claim on its own, in order: a new volume
// must support all of them ("CreateVolume", volume_capabilities).
func AccessModes(modes []corev1.PersistentVolumeAccessMode, singleNodeMultiWriter bool) ([]csipb.VolumeCapability_AccessMode_Mode, error) {
	if len(modes) == 0 {
		return nil, errors.New("mapping access modes to CSI: there are none")
	}
	mapped := make([]csipb.VolumeCapability_AccessMode_Mode, 0, len(modes))
	for _, m := range modes {
		if m == corev1.ReadWriteOncePod && len(modes) > 1 {
			return nil, fmt.Errorf("mapping access modes %q to CSI: ReadWriteOncePod cannot be combined with other modes", modes)
		}
		mode, err := AccessMode([]corev1.PersistentVolumeAccessMode{m}, singleNodeMultiWriter)
		if err != nil {
			return nil, err
		}
		mapped = append(mapped, mode)
	}
	return mapped, nil
}

// Capability is the capability with which a volume is published, or expanded while
// it is published. fs is the filesystem of volumes that name none; it may be empty.
func Capability(volume *corev1.PersistentVolumeSpec, singleNodeMultiWriter bool, fs string) (*csipb.VolumeCapability, error) {
	mode, err := AccessMode(volume.AccessModes, singleNodeMultiWriter)
	if err != nil {
		return nil, err
	}
	c := &csipb.VolumeCapability{AccessMode: &csipb.VolumeCapability_AccessMode{Mode: mode}}
	if volume.VolumeMode != nil && *volume.VolumeMode == corev1.PersistentVolumeBlock {
		c.AccessType = &csipb.VolumeCapability_Block{Block: &csipb.VolumeCapability_BlockVolume{}}
		return c, nil
	}
	if volume.CSI != nil && volume.CSI.FSType != "" {
		fs = volume.CSI.FSType
	}
	c.AccessType = &csipb.VolumeCapability_Mount{Mount: &csipb.VolumeCapability_MountVolume{FsType: fs, MountFlags: volume.MountOptions}}
	return c, nil
}
