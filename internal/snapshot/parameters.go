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

// What the driver is told about the objects, where that is asked for.
const (
	keySnapshotName      = kube.ReservedParameterPrefix + "volumesnapshot/name"
	keySnapshotNamespace = kube.ReservedParameterPrefix + "volumesnapshot/namespace"
	keyContentName       = kube.ReservedParameterPrefix + "volumesnapshotcontent/name"
	keyGroupName         = kube.ReservedParameterPrefix + "volumegroupsnapshot/name"
	keyGroupNamespace    = kube.ReservedParameterPrefix + "volumegroupsnapshot/namespace"
	keyGroupContentName  = kube.ReservedParameterPrefix + "volumegroupsnapshotcontent/name"
)

// The secrets that a class of snapshots, or of group snapshots, may name: one
// for creating and deleting, one for reading.
var (
	Snapshotter      = secretref.New("snapshotter-secret")
	Lister           = secretref.New("snapshotter-list-secret")
	GroupSnapshotter = secretref.New("group-snapshotter-secret")
	GroupGetter      = secretref.New("group-snapshotter-get-secret")
)

// DriverParameters are a class's parameters without those for Kubernetes. A key
// with their prefix that nobody knows is an error: it is a typing mistake, most
// likely in the name of a secret.
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
			return nil, fmt.Errorf("parameter %q of the class is unknown: keys that begin with %s are reserved", key, kube.ReservedParameterPrefix)
		}
	}
	return parameters, nil
}

// AddMetadataParameters tells the driver, by parameters, of which objects a snapshot is.
func AddMetadataParameters(parameters map[string]string, ref corev1.ObjectReference, content string) {
	parameters[keySnapshotName], parameters[keySnapshotNamespace], parameters[keyContentName] = ref.Name, ref.Namespace, content
}

// AddGroupMetadataParameters tells the driver, by parameters, of which objects a group
// snapshot is.
func AddGroupMetadataParameters(parameters map[string]string, ref corev1.ObjectReference, content string) {
	parameters[keyGroupName], parameters[keyGroupNamespace], parameters[keyGroupContentName] = ref.Name, ref.Namespace, content
}

// Tokens are what stands for ${TOKEN} in the secrets that a class of single
// snapshots names. Without a reference only the content's name is known.
func Tokens(content string, ref corev1.ObjectReference) secretref.Tokens {
	return tokens("volumesnapshot", content, ref)
}

// GroupTokens are Tokens for a class of group snapshots.
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
