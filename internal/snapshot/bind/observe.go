package bind

import (
	"context"
	"fmt"
	"slices"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// observe reads a snapshot from the given source and all else from the cache.
func (r *Reconciler) observe(ctx context.Context, from client.Reader, key client.ObjectKey) (*seen, error) {
	s := &seen{}
	if err := kube.Read(ctx, from, key, &s.snapshot); err != nil || s.snapshot == nil {
		return s, err
	}
	if err := kube.Read(ctx, r.client, client.ObjectKey{Name: s.contentName()}, &s.content); err != nil {
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
	if s.restores, err = Restores(ctx, r.client, s.snapshot); err != nil || !s.member() || r.groups == nil {
		return err
	}
	owner := snapshot.GroupOf(s.snapshot)
	there, err := r.groups.There(ctx, s.snapshot.Namespace, owner)
	if there {
		s.group = owner.Name
	}
	return err
}

// observeSource reads what a content is made from.
func (r *Reconciler) observeSource(ctx context.Context, s *seen) error {
	name := ptr.Deref(s.snapshot.Spec.Source.PersistentVolumeClaimName, "")
	if name == "" {
		return nil
	}
	if err := kube.Read(ctx, r.client, client.ObjectKey{Namespace: s.snapshot.Namespace, Name: name}, &s.claim); err != nil || s.claim == nil || s.claim.Spec.VolumeName == "" {
		return err
	}
	if err := kube.Read(ctx, r.client, client.ObjectKey{Name: s.claim.Spec.VolumeName}, &s.volume); err != nil || s.volume == nil {
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
	return kube.Read(ctx, r.client, client.ObjectKey{Name: name}, &s.class)
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
	nodes, err := snapshot.NodesOf(ctx, r.client, volume)
	return append(nodes, "")[0], err
}
