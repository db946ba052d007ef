package bind

import (
	"context"
	"fmt"
	"slices"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// observe reads a snapshot from the given source and all else from the cache.
func (r *Reconciler) observe(ctx context.Context, from client.Reader, key client.ObjectKey) (*seen, error) {
	s := &seen{}
	if err := read(ctx, from, key, &s.snapshot); err != nil || s.snapshot == nil {
		return s, err
	}
	if err := read(ctx, r.client, client.ObjectKey{Name: s.contentName()}, &s.content); err != nil {
		return nil, err
	}
	if s.snapshot.DeletionTimestamp != nil {
		return s, r.observeUsers(ctx, s)
	}
	if s.static() || s.content != nil || s.member() {
		return s, nil
	}
	return s, r.observeSource(ctx, s)
}

// observeUsers finds what still needs a snapshot that is being deleted.
func (r *Reconciler) observeUsers(ctx context.Context, s *seen) (err error) {
	if s.restores, err = r.restores(ctx, s.snapshot); err != nil || !s.member() || r.groups == nil {
		return err
	}
	there, err := r.groups(ctx, s.snapshot.Namespace, groupOf(s.snapshot))
	if there {
		s.group = groupOf(s.snapshot)
	}
	return err
}

// observeSource reads what a content is made from.
func (r *Reconciler) observeSource(ctx context.Context, s *seen) error {
	name := ptr.Deref(s.snapshot.Spec.Source.PersistentVolumeClaimName, "")
	if name == "" {
		return nil
	}
	if err := read(ctx, r.client, client.ObjectKey{Namespace: s.snapshot.Namespace, Name: name}, &s.claim); err != nil || s.claim == nil || s.claim.Spec.VolumeName == "" {
		return err
	}
	if err := read(ctx, r.client, client.ObjectKey{Name: s.claim.Spec.VolumeName}, &s.volume); err != nil || s.volume == nil {
		return err
	}
	if err := r.observeClass(ctx, s); err != nil || !r.options.Distributed {
		return err
	}
	var err error
	s.node, err = r.nodeOf(ctx, s.volume)
	return err
}

func (r *Reconciler) observeClass(ctx context.Context, s *seen) error {
	name := ptr.Deref(s.snapshot.Spec.VolumeSnapshotClassName, "")
	if name == "" && s.volume.Spec.CSI != nil {
		var err error
		if s.defaults, err = r.defaults(ctx, s.volume.Spec.CSI.Driver); err != nil || len(s.defaults) != 1 {
			return err
		}
		name = s.defaults[0]
	}
	return read(ctx, r.client, client.ObjectKey{Name: name}, &s.class)
}

// defaults are the names of a driver's default classes.
func (r *Reconciler) defaults(ctx context.Context, driver string) ([]string, error) {
	all := &snapshotv1.VolumeSnapshotClassList{}
	if err := r.client.List(ctx, all); err != nil {
		return nil, fmt.Errorf("listing VolumeSnapshotClasses: %w", err)
	}
	var names []string
	for _, class := range all.Items {
		if class.Driver == driver && class.Annotations[snapshot.Single.Default] == "true" {
			names = append(names, class.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// nodeOf is the first node by name that a volume can be used on; empty for none.
func (r *Reconciler) nodeOf(ctx context.Context, volume *corev1.PersistentVolume) (string, error) {
	affinity := volume.Spec.NodeAffinity
	if affinity == nil || affinity.Required == nil {
		return "", nil
	}
	selector, err := nodeaffinity.NewNodeSelector(affinity.Required)
	if err != nil {
		return "", fmt.Errorf("reading the node affinity of PersistentVolume %s: %w", volume.Name, err)
	}
	nodes := &corev1.NodeList{}
	if err := r.client.List(ctx, nodes); err != nil {
		return "", fmt.Errorf("listing nodes: %w", err)
	}
	var names []string
	for i := range nodes.Items {
		if selector.Match(&nodes.Items[i]) {
			names = append(names, nodes.Items[i].Name)
		}
	}
	slices.Sort(names)
	return append(names, "")[0], nil
}

// read reads an object into *into, or leaves it nil if it is not there.
func read[T any, P interface {
	*T
	client.Object
}](ctx context.Context, from client.Reader, key client.ObjectKey, into *P) error {
	object := P(new(T))
	if key.Name == "" {
		return nil
	}
	if err := from.Get(ctx, key, object); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return nil
		}
		return fmt.Errorf("reading %T %s: %w", object, key, err)
	}
	*into = object
	return nil
}
