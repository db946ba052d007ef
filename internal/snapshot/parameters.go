package snapshot

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/secretref"
)

// Parameters with the names of the objects (flag --extra-create-metadata).
const (
	keySnapshotName      = kube.ReservedParameterPrefix + "volumesnapshot/name"
	keySnapshotNamespace = kube.ReservedParameterPrefix + "volumesnapshot/namespace"
	keyContentName       = kube.ReservedParameterPrefix + "volumesnapshotcontent/name"
	keyGroupName         = kube.ReservedParameterPrefix + "volumegroupsnapshot/name"
	keyGroupNamespace    = kube.ReservedParameterPrefix + "volumegroupsnapshot/namespace"
	keyGroupContentName  = kube.ReservedParameterPrefix + "volumegroupsnapshotcontent/name"
)

// The secrets that a class may name: one for creating and deleting, and one for reading.
var (
	Snapshotter      = secretref.New("snapshotter-secret")
	Lister           = secretref.New("snapshotter-list-secret")
	GroupSnapshotter = secretref.New("group-snapshotter-secret")
	GroupGetter      = secretref.New("group-snapshotter-get-secret")
)

// DriverParameters returns a class's parameters without those for Kubernetes. An unknown key
// with the reserved prefix is an error. It is probably a typo in the key of a secret.
func DriverParameters(class map[string]string) (map[string]string, error) {
	known := map[string]bool{}
	for _, use := range []secretref.Use{Snapshotter, Lister, GroupSnapshotter, GroupGetter} {
		name, namespace := use.Keys()
		known[name], known[namespace] = true, true
	}
	parameters := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(class)) {
		switch {
		case !strings.HasPrefix(key, kube.ReservedParameterPrefix):
			parameters[key] = class[key]
		case !known[key]:
			return nil, fmt.Errorf("the class has unknown parameter %q: keys that begin with %s are reserved", key, kube.ReservedParameterPrefix)
		}
	}
	return parameters, nil
}

// AddMetadataParameters adds the names of a VolumeSnapshot and its content.
func AddMetadataParameters(parameters map[string]string, ref corev1.ObjectReference, content string) {
	parameters[keySnapshotName], parameters[keySnapshotNamespace], parameters[keyContentName] = ref.Name, ref.Namespace, content
}

// AddGroupMetadataParameters adds the names of a VolumeGroupSnapshot and its content.
func AddGroupMetadataParameters(parameters map[string]string, ref corev1.ObjectReference, content string) {
	parameters[keyGroupName], parameters[keyGroupNamespace], parameters[keyGroupContentName] = ref.Name, ref.Namespace, content
}

// Tokens returns the values of ${TOKEN} in the secrets that a VolumeSnapshotClass names.
// Without a reference, only the content's name is known.
func Tokens(content string, ref corev1.ObjectReference) secretref.Tokens {
	return tokens("volumesnapshot", content, ref)
}

// GroupTokens returns the values of ${TOKEN} for a VolumeGroupSnapshotClass.
func GroupTokens(content string, ref corev1.ObjectReference) secretref.Tokens {
	return tokens("volumegroupsnapshot", content, ref)
}

func tokens(kind, content string, ref corev1.ObjectReference) secretref.Tokens {
	namespace := map[string]string{kind + "content.name": content}
	if ref.Namespace != "" {
		namespace[kind+".namespace"] = ref.Namespace
	}
	name := maps.Clone(namespace)
	if ref.Name != "" {
		name[kind+".name"] = ref.Name
	}
	return secretref.Tokens{Namespace: namespace, Name: name}
}
