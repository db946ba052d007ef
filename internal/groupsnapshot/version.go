package groupsnapshot

import (
	"fmt"
	"slices"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A Version is a version of the API. v1 and v1beta2 have the same fields, so the Go types of
// v1 are used for both, and only the scheme depends on the version.
type Version struct{ schema.GroupVersion }

// versions are the supported versions, the preferred one first. v1beta1 lacks required fields
// of the members.
var versions = []string{"v1", "v1beta2"}

// ServedVersion is the best version that a cluster serves. A cluster that serves none
// is expected to get the first.
func ServedVersion(config *rest.Config) (Version, error) {
	best := Version{schema.GroupVersion{Group: groupv1.GroupName, Version: versions[0]}}
	api, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return best, fmt.Errorf("creating the discovery client: %w", err)
	}
	groups, err := api.ServerGroups()
	if err != nil {
		return best, fmt.Errorf("listing the served APIs: %w", err)
	}
	i := slices.IndexFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == groupv1.GroupName })
	if i >= 0 {
		best.Version = bestVersion(groups.Groups[i].Versions)
	}
	return best, nil
}

func bestVersion(served []metav1.GroupVersionForDiscovery) string {
	for _, version := range versions {
		if slices.ContainsFunc(served, func(v metav1.GroupVersionForDiscovery) bool { return v.Version == version }) {
			return version
		}
	}
	return versions[0]
}

// AddToScheme registers the kinds with a scheme.
func (v Version) AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(v.GroupVersion,
		&groupv1.VolumeGroupSnapshot{}, &groupv1.VolumeGroupSnapshotList{},
		&groupv1.VolumeGroupSnapshotContent{}, &groupv1.VolumeGroupSnapshotContentList{},
		&groupv1.VolumeGroupSnapshotClass{}, &groupv1.VolumeGroupSnapshotClassList{})
	metav1.AddToGroupVersion(s, v.GroupVersion)
	return nil
}

// SidecarKinds are the kinds that csi-snapshotter needs.
func SidecarKinds() []client.ObjectList {
	return []client.ObjectList{
		&groupv1.VolumeGroupSnapshotContentList{}, &groupv1.VolumeGroupSnapshotClassList{},
	}
}

// ControllerKinds are the kinds that snapshot-controller needs. csi-snapshotter does not use
// VolumeGroupSnapshots.
func ControllerKinds() []client.ObjectList {
	return append(SidecarKinds(), &groupv1.VolumeGroupSnapshotList{})
}
