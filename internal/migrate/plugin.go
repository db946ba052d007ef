// Package migrate lets a CSI driver serve the classes and volumes of the in-tree
// volume plugin for the same storage (KEP-625, "In-tree storage plugin to CSI
// migration"). There are seven such drivers; for all others it does nothing.
//
// API objects keep the in-tree form, which users and other programs rely on. Only
// requests to the driver are translated.
package migrate

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	translation "k8s.io/csi-translation-lib"
	"k8s.io/klog/v2"
)

// A Plugin is the in-tree plugin that a CSI driver replaces. The zero value is
// for drivers that replace none.
type Plugin struct{ name string }

// ForDriver returns the in-tree plugin that a driver replaces, and the zero
// Plugin if there is none.
func ForDriver(driver string) Plugin {
	name, err := translation.New().GetInTreeNameFromCSIName(driver)
	if err != nil {
		return Plugin{} // The only error is that the driver replaces no plugin.
	}
	return Plugin{name: name}
}

// IsProvisioner reports whether a class's provisioner is the in-tree plugin.
func (p Plugin) IsProvisioner(provisioner string) bool { return p.name != "" && provisioner == p.name }

// HasVolume reports whether a volume has the form of the in-tree plugin.
func (p Plugin) HasVolume(volume *corev1.PersistentVolume) bool {
	if p.name == "" || volume.Spec.CSI != nil {
		return false
	}
	name, err := translation.New().GetInTreePluginNameFromSpec(volume, nil)
	return err == nil && name == p.name
}

// IsVolumeOf reports whether a volume belongs to a driver, or to the in-tree plugin that the
// driver replaces.
func (p Plugin) IsVolumeOf(driver string, volume *corev1.PersistentVolume) bool {
	return volume.Spec.CSI != nil && volume.Spec.CSI.Driver == driver || p.HasVolume(volume)
}

// ClassToCSI translates a class of the in-tree plugin into CSI form, and
// returns any other class unchanged.
func (p Plugin) ClassToCSI(ctx context.Context, class *storagev1.StorageClass) (*storagev1.StorageClass, error) {
	if !p.IsProvisioner(class.Provisioner) {
		return class, nil
	}
	translated, err := translation.New().TranslateInTreeStorageClassToCSI(klog.FromContext(ctx), p.name, class)
	if err != nil {
		return nil, fmt.Errorf("translating StorageClass %s of %s for its CSI driver: %w", class.Name, p.name, err)
	}
	return translated, nil
}

// ToCSI translates a volume of the in-tree plugin into CSI form, and returns
// any other volume unchanged.
func (p Plugin) ToCSI(ctx context.Context, volume *corev1.PersistentVolume) (*corev1.PersistentVolume, error) {
	if !p.HasVolume(volume) {
		return volume, nil
	}
	translated, err := translation.New().TranslateInTreePVToCSI(klog.FromContext(ctx), volume)
	if err != nil {
		return nil, fmt.Errorf("translating PersistentVolume %s of %s for its CSI driver: %w", volume.Name, p.name, err)
	}
	return translated, nil
}

// RepairHandle completes the handle of a translated volume with the driver's ID
// of the node. Some in-tree volumes lack parts that their driver requires, such
// as the zone, and the node ID has them.
func (p Plugin) RepairHandle(handle, nodeID string) (string, error) {
	translator := translation.New()
	driver, err := translator.GetCSINameFromInTreeName(p.name)
	if err == nil {
		handle, err = translator.RepairVolumeHandle(driver, handle, nodeID)
	}
	if err != nil {
		return "", fmt.Errorf("completing volume handle %s of %s with node %s: %w", handle, p.name, nodeID, err)
	}
	return handle, nil
}

// ToInTree translates a new volume into the in-tree form if its class names the
// in-tree plugin, as the class's users expect.
func (p Plugin) ToInTree(provisioner string, volume *corev1.PersistentVolume) (*corev1.PersistentVolume, error) {
	if !p.IsProvisioner(provisioner) {
		return volume, nil
	}
	translated, err := translation.New().TranslateCSIPVToInTree(volume)
	if err != nil {
		return nil, fmt.Errorf("translating PersistentVolume %s into the form of %s: %w", volume.Name, p.name, err)
	}
	return translated, nil
}
