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

// find reads a source from the API server itself: few claims have one, and the
// kinds of snapshots need not be installed to be watched.
func (r *Reconciler) find(ctx context.Context, from source, forNamespace string) (*origin, error) {
	o := &origin{source: from}
	var err error
	if from.Kind == kindSnapshot {
		o.snapshot, err = r.findSnapshot(ctx, types.NamespacedName{Namespace: from.Namespace, Name: from.Name})
	} else {
		o.claim, err = r.findClaim(ctx, types.NamespacedName{Namespace: from.Namespace, Name: from.Name})
	}
	if err != nil || from.Namespace == forNamespace {
		return o, err
	}
	o.granted, err = r.granted(ctx, from, forNamespace)
	return o, err
}

func (r *Reconciler) findSnapshot(ctx context.Context, key types.NamespacedName) (*found, error) {
	f := &found{}
	snapshot := &snapshotv1.VolumeSnapshot{}
	there, err := r.getLive(ctx, key, snapshot)
	if meta.IsNoMatchError(err) {
		return nil, errors.New("the snapshot API is not installed in this cluster; install it by: holdfast crds | kubectl apply --server-side -f -")
	}
	if err != nil || !there {
		return f, err
	}
	f.snapshot = snapshot
	if snapshot.Status == nil || ptr.Deref(snapshot.Status.BoundVolumeSnapshotContentName, "") == "" {
		return f, nil
	}
	content := &snapshotv1.VolumeSnapshotContent{}
	if there, err = r.getLive(ctx, types.NamespacedName{Name: *snapshot.Status.BoundVolumeSnapshotContentName}, content); there {
		f.content = content
	}
	return f, err
}

func (r *Reconciler) findClaim(ctx context.Context, key types.NamespacedName) (*cloned, error) {
	c := &cloned{}
	claim := &corev1.PersistentVolumeClaim{}
	there, err := r.getLive(ctx, key, claim)
	if err != nil || !there {
		return c, err
	}
	c.claim = claim
	if claim.Spec.VolumeName == "" {
		return c, nil
	}
	volume := &corev1.PersistentVolume{}
	if there, err = r.getLive(ctx, types.NamespacedName{Name: claim.Spec.VolumeName}, volume); there {
		c.volume, err = r.options.Plugin.ToCSI(ctx, volume)
	}
	return c, err
}

// getLive reads past the cache; it reports whether the object exists.
func (r *Reconciler) getLive(ctx context.Context, key types.NamespacedName, into client.Object) (bool, error) {
	err := r.live.Get(ctx, key, into)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("reading %s: %w", key, err)
	}
	return err == nil, nil
}

// grants is the list kind of ReferenceGrant, of the Gateway API. Only four of
// its fields matter here, so its types are not worth a dependency.
var grants = schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1beta1", Kind: "ReferenceGrantList"}

// granted tells whether a ReferenceGrant in the source's namespace lets claims
// of a namespace use the source (KEP-3294).
func (r *Reconciler) granted(ctx context.Context, from source, namespace string) (bool, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(grants)
	err := r.live.List(ctx, list, client.InNamespace(from.Namespace))
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

// findAttributes reads the attributes class that a claim names.
func (r *Reconciler) findAttributes(ctx context.Context, name string) (*storagev1.VolumeAttributesClass, error) {
	class := &storagev1.VolumeAttributesClass{}
	there, err := r.getLive(ctx, types.NamespacedName{Name: name}, class)
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
