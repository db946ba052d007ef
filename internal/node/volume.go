package node

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/local"
)

// csiPlugin is the directory of the volumes of CSI drivers, among those of a pod.
const csiPlugin = "kubernetes.io~csi"

// openVolume returns the store in the volume of a Checkpoint, which the checkpoint-operator
// has mounted by a pod.
func (s *Stores) openVolume(v *v1alpha1.CheckpointVolume) (*Place, error) {
	if v == nil || v.PodUID == "" {
		return nil, fmt.Errorf("%w: the volume is not mounted: the checkpoint-operator mounts it by a pod", store.ErrUnavailable)
	}
	for _, name := range []string{string(v.PodUID), v.VolumeName} { // They become part of a path.
		if store.ValidateKey(name) != nil || filepath.Base(name) != name {
			return nil, fmt.Errorf("%w: the volume has the name %q", store.ErrInvalid, name)
		}
	}
	plugins := filepath.Join(s.KubeletDir, "pods", string(v.PodUID), "volumes")
	dir := filepath.Join(plugins, csiPlugin, v.VolumeName)
	if others, err := filepath.Glob(filepath.Join(plugins, "*", v.VolumeName)); err == nil && len(others) > 0 && !slices.Contains(others, dir) {
		return nil, fmt.Errorf("%w: PersistentVolume %s is not from a CSI driver: use a claim whose volume is", store.ErrInvalid, v.VolumeName)
	}
	return &Place{local.NewInVolume(filepath.Join(dir, "mount")), "pvc:" + v.ClaimName + "/"}, nil
}

// usesVolume reports whether the data of a Checkpoint are in a volume.
func usesVolume(c *v1alpha1.Checkpoint) bool {
	return c.Status.Storage != nil && c.Status.Storage.Backend == v1alpha1.BackendPVC
}

// ownsVolume reports whether the volume was created for the Checkpoint: then the
// checkpoint-operator deletes it, with the data.
func ownsVolume(c *v1alpha1.Checkpoint) bool {
	return usesVolume(c) && c.Status.Storage.PVCTemplate != nil
}

// awaitsVolume reports whether the volume of a Checkpoint has to be mounted first. The
// checkpoint-operator says why it is not.
func awaitsVolume(c *v1alpha1.Checkpoint) bool {
	return usesVolume(c) && (c.Status.Volume == nil || c.Status.Volume.PodUID == "")
}

// hasData reports whether anything may be stored. Locations are recorded before.
func hasData(c *v1alpha1.Checkpoint) bool {
	return slices.ContainsFunc(c.Status.Containers, func(at v1alpha1.ContainerCheckpoint) bool { return at.Location != "" })
}
