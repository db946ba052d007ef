// Package migrate lets a CSI driver serve the classes and volumes of the volume
// plugin that Kubernetes once had built in for the same storage (KEP-625). There
// are seven such drivers; for all others it does nothing.
//
// Such a volume keeps the plugin's form in the API: users and other programs
// know it by that. Only what the driver is told is translated.
package migrate

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	translation "k8s.io/csi-translation-lib"
	"k8s.io/klog/v2"
)

// A Plugin is what a CSI driver has taken the place of. The zero value is for
// drivers that have not.
type Plugin struct{ name string }

// ForDriver is the plugin that a driver has taken the place of, the zero Plugin for
// none.
func ForDriver(driver string) Plugin {
	name, err := translation.New().GetInTreeNameFromCSIName(driver)
	if err != nil {
		return Plugin{} // The only error is that there is none.
	}
	return Plugin{name: name}
}

// IsProvisioner tells whether a class's provisioner is the plugin.
func (p Plugin) IsProvisioner(provisioner string) bool { return p.name != "" && provisioner == p.name }

// HasVolume tells whether a volume is in the plugin's form.
func (p Plugin) HasVolume(volume *corev1.PersistentVolume) bool {
	if p.name == "" || volume.Spec.CSI != nil {
		return false
	}
	name, err := translation.New().GetInTreePluginNameFromSpec(volume, nil)
	return err == nil && name == p.name
}

// ClassToCSI is a class of the plugin in the driver's form, any other as it is.
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

// ToCSI is a volume in the driver's form.
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

// RepairHandle is the handle of a volume in the driver's form, as the driver knows it
// on a node: some plugins' volumes say less of where they are than their drivers
// want to hear, and what they lack is in the driver's id of the node.
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

// ToInTree is a new volume of a class in the form in which the class's users
// expect it.
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
