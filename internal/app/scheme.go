package app

import (
	"fmt"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// newScheme registers the API groups that roles read or write, and those that add
// adds. All groups of Kubernetes would take two megabytes more in every process.
func newScheme(add func(*runtime.Scheme) error) (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	adds := []func(*runtime.Scheme) error{
		corev1.AddToScheme, storagev1.AddToScheme, coordinationv1.AddToScheme, snapshotv1.AddToScheme, v1alpha1.AddToScheme,
	}
	if add != nil {
		adds = append(adds, add)
	}
	for _, add := range adds {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("registering API types: %w", err)
		}
	}
	return scheme, nil
}
