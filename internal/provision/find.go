package provision

import (
	"context"
	"errors"
	"fmt"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// resolve reads a source from the API server itself: few claims have one, and the
// kinds of snapshots need not be installed to be watched.
func (r *Reconciler) resolve(ctx context.Context, from Source, forNamespace string) (*Resolved, error) {
	o := &Resolved{Source: from}
	var err error
	if from.Kind == KindSnapshot {
		o.Snapshot, err = r.resolveSnapshot(ctx, types.NamespacedName{Namespace: from.Namespace, Name: from.Name})
	} else {
		o.Claim, err = r.resolveClaim(ctx, types.NamespacedName{Namespace: from.Namespace, Name: from.Name})
	}
	if err != nil || from.Namespace == forNamespace {
		return o, err
	}
	o.Granted, err = r.isGranted(ctx, from, forNamespace)
	return o, err
}

func (r *Reconciler) resolveSnapshot(ctx context.Context, key types.NamespacedName) (*SnapshotSource, error) {
	f := &SnapshotSource{}
	snapshot := &snapshotv1.VolumeSnapshot{}
	there, err := r.getUncached(ctx, key, snapshot)
	if meta.IsNoMatchError(err) {
		return nil, errors.New("the snapshot API is not installed in this cluster; install it by: holdfast crds | kubectl apply --server-side -f -")
	}
	if err != nil || !there {
		return f, err
	}
	f.Snapshot = snapshot
	if snapshot.Status == nil || ptr.Deref(snapshot.Status.BoundVolumeSnapshotContentName, "") == "" {
		return f, nil
	}
	content := &snapshotv1.VolumeSnapshotContent{}
	if there, err = r.getUncached(ctx, types.NamespacedName{Name: *snapshot.Status.BoundVolumeSnapshotContentName}, content); there {
		f.Content = content
	}
	return f, err
}

func (r *Reconciler) resolveClaim(ctx context.Context, key types.NamespacedName) (*ClaimSource, error) {
	c := &ClaimSource{}
	claim := &corev1.PersistentVolumeClaim{}
	there, err := r.getUncached(ctx, key, claim)
	if err != nil || !there {
		return c, err
	}
	c.Claim = claim
	if claim.Spec.VolumeName == "" {
		return c, nil
	}
	volume := &corev1.PersistentVolume{}
	if there, err = r.getUncached(ctx, types.NamespacedName{Name: claim.Spec.VolumeName}, volume); there {
		c.Volume, err = r.options.Plugin.ToCSI(ctx, volume)
	}
	return c, err
}

// getUncached reads past the cache; it reports whether the object exists.
func (r *Reconciler) getUncached(ctx context.Context, key types.NamespacedName, into client.Object) (bool, error) {
	err := r.apiReader.Get(ctx, key, into)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("reading %s: %w", key, err)
	}
	return err == nil, nil
}

// grants is the list kind of ReferenceGrant, of the Gateway API. Only four of
// its fields matter here, so its types are not worth a dependency.
var grants = schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1beta1", Kind: "ReferenceGrantList"}

// isGranted tells whether a ReferenceGrant in the source's namespace lets claims
// of a namespace use the source (KEP-3294).
func (r *Reconciler) isGranted(ctx context.Context, from Source, namespace string) (bool, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(grants)
	err := r.apiReader.List(ctx, list, client.InNamespace(from.Namespace))
	if meta.IsNoMatchError(err) {
		return false, nil // Where the kind is not installed nobody has granted anything.
	}
	if err != nil {
		return false, fmt.Errorf("reading the ReferenceGrants of namespace %s: %w", from.Namespace, err)
	}
	for i := range list.Items {
		if grants := grantOf(list.Items[i]); grants.allows(from, namespace) {
			return true, nil
		}
	}
	return false, nil
}

// readAttributesClass reads the attributes class that a claim names.
func (r *Reconciler) readAttributesClass(ctx context.Context, name string) (*storagev1.VolumeAttributesClass, error) {
	class := &storagev1.VolumeAttributesClass{}
	there, err := r.getUncached(ctx, types.NamespacedName{Name: name}, class)
	switch {
	case err != nil:
		return nil, err
	case !there:
		return nil, fmt.Errorf("VolumeAttributesClass %q of the claim does not exist", name)
	case class.DriverName != r.options.Driver:
		return nil, fmt.Errorf("VolumeAttributesClass %q is for driver %s, and the StorageClass is of driver %s", name, class.DriverName, r.options.Driver)
	}
	return class, nil
}
