package capacity

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// findOwner follows the controller references from this process's pod, as many
// levels as the options say. It reads only the objects on the way: level 1 needs
// permission to read pods only.
func findOwner(ctx context.Context, from client.Reader, o *Options) (*metav1.OwnerReference, error) {
	if o.OwnerLevel < 0 {
		return nil, nil
	}
	at := metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: o.Pod}
	object, err := metadata(ctx, from, o.Namespace, at)
	if err != nil {
		return nil, err
	}
	at.UID = object.UID
	for level := range o.OwnerLevel {
		if level > 0 {
			if object, err = metadata(ctx, from, o.Namespace, at); err != nil {
				return nil, err
			}
		}
		up := metav1.GetControllerOf(object)
		if up == nil {
			return nil, fmt.Errorf("%s %s has no controller: lower --capacity-ownerref-level to %d", at.Kind, at.Name, level)
		}
		at = *up
	}
	return &metav1.OwnerReference{APIVersion: at.APIVersion, Kind: at.Kind, Name: at.Name, UID: at.UID, Controller: ptr.To(true)}, nil
}

func metadata(ctx context.Context, from client.Reader, namespace string, ref metav1.OwnerReference) (*metav1.PartialObjectMetadata, error) {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind))
	if err := from.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.Name}, object); err != nil {
		return nil, fmt.Errorf("reading %s %s/%s to find the owner of CSIStorageCapacity objects: %w", ref.Kind, namespace, ref.Name, err)
	}
	return object, nil
}
