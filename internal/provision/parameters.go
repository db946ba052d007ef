package provision

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/secretref"
)

// Keys of class parameters.
const (
	keyFSType    = kube.ReservedParameterPrefix + "fstype"
	keyOldFSType = "fstype" // in any case; csi-provisioner passes it to drivers too
)

// driverParameters returns the parameters of a class that are for the driver. An unknown
// key with the reserved prefix is an error: most likely the name of a secret is mistyped.
func driverParameters(class map[string]string) (map[string]string, error) {
	known := map[string]bool{keyFSType: true}
	for _, use := range secretref.Uses {
		name, namespace := use.Keys()
		known[name], known[namespace] = true, true
	}
	left := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(class)) {
		switch {
		case !strings.HasPrefix(key, kube.ReservedParameterPrefix):
			left[key] = class[key]
		case !known[key]:
			return nil, fmt.Errorf("parameter %q of the StorageClass is unknown: keys that begin with %s are reserved", key, kube.ReservedParameterPrefix)
		}
	}
	return left, nil
}

// fsType returns the filesystem of a class, or fallback if it has none. An empty value is none.
func fsType(class map[string]string, fallback string) (string, error) {
	var found []string
	for _, key := range slices.Sorted(maps.Keys(class)) {
		if (strings.EqualFold(key, keyOldFSType) || key == keyFSType) && class[key] != "" {
			found = append(found, key)
		}
	}
	switch len(found) {
	case 0:
		return fallback, nil
	case 1:
		return class[found[0]], nil
	default:
		return "", fmt.Errorf("the StorageClass gives the filesystem more than once: %s", strings.Join(found, ", "))
	}
}
