package bind

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	single "github.com/holdfast-io/holdfast/internal/snapshot/bind"
)

// observe reads a group and the claims that it selects from the given source,
// and all else from the cache. A cache that lags may lack a claim, which would
// be left out of the group for ever: so nothing is made of what it alone shows.
func (r *Reconciler) observe(ctx context.Context, from client.Reader, key client.ObjectKey) (*seen, error) {
	s := &seen{}
	if err := kube.Read(ctx, from, key, &s.group); err != nil {
		return nil, err
	}
	if s.group == nil || s.group.DeletionTimestamp != nil {
		if err := r.observeMembers(ctx, s, key); err != nil || s.group == nil {
			return s, err
		}
	}
	if err := kube.Read(ctx, r.client, client.ObjectKey{Name: s.contentName()}, &s.content); err != nil {
		return nil, err
	}
	if s.group.DeletionTimestamp != nil || s.static() || s.content != nil {
		return s, nil
	}
	return s, r.observeSources(ctx, from, s)
}

// observeMembers finds the members of a group that goes, or is gone, and what
// still needs one of them.
func (r *Reconciler) observeMembers(ctx context.Context, s *seen, group client.ObjectKey) error {
	all := &snapshotv1.VolumeSnapshotList{}
	if err := r.client.List(ctx, all, client.InNamespace(group.Namespace), client.MatchingFields{membersByGroup: group.Name}); err != nil {
		return fmt.Errorf("listing the members of group snapshot %s: %w", group.Name, err)
	}
	s.members = all.Items
	if s.group == nil {
		return nil
	}
	for i := range s.members {
		waiting, err := single.Restores(ctx, r.client, &s.members[i])
		if err != nil {
			return err
		}
		s.restores = append(s.restores, waiting...)
	}
	slices.Sort(s.restores)
	s.restores = slices.Compact(s.restores)
	return nil
}

// observeSources reads what a content is made from.
func (r *Reconciler) observeSources(ctx context.Context, from client.Reader, s *seen) error {
	selector, err := metav1.LabelSelectorAsSelector(s.group.Spec.Source.Selector)
	if err != nil {
		return nil //nolint:nilerr // decide says so.
	}
	claims := &corev1.PersistentVolumeClaimList{}
	if err := from.List(ctx, claims, client.InNamespace(s.group.Namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return fmt.Errorf("listing the claims that the group snapshot selects: %w", err)
	}
	for i := range claims.Items {
		source := snapshot.Source{Name: claims.Items[i].Name, Claim: &claims.Items[i]}
		if err := kube.Read(ctx, r.client, client.ObjectKey{Name: source.Claim.Spec.VolumeName}, &source.Volume); err != nil {
			return err
		}
		s.sources = append(s.sources, source)
	}
	slices.SortFunc(s.sources, func(a, b snapshot.Source) int { return cmp.Compare(a.Name, b.Name) })
	if s.checkSources() != nil {
		return nil //nolint:nilerr // decide tells; all else is about their driver.
	}
	if err := r.observeClass(ctx, s); err != nil || !r.options.Distributed {
		return err
	}
	return r.observeNodes(ctx, s)
}

func (r *Reconciler) observeClass(ctx context.Context, s *seen) error {
	name := ptr.Deref(s.group.Spec.VolumeGroupSnapshotClassName, "")
	if name == "" {
		all := &groupv1.VolumeGroupSnapshotClassList{}
		if err := r.client.List(ctx, all); err != nil {
			return fmt.Errorf("listing VolumeGroupSnapshotClasses: %w", err)
		}
		for _, class := range all.Items {
			if class.Driver == s.driver() && class.Annotations[snapshot.Group.Default] == "true" {
				s.defaults = append(s.defaults, class.Name)
			}
		}
		slices.Sort(s.defaults)
		if len(s.defaults) != 1 {
			return nil
		}
		name = s.defaults[0]
	}
	return kube.Read(ctx, r.client, client.ObjectKey{Name: name}, &s.class)
}

// observeNodes finds the nodes on which all of the volumes can be used.
func (r *Reconciler) observeNodes(ctx context.Context, s *seen) error {
	for i := range s.sources {
		nodes, err := snapshot.NodesOf(ctx, r.client, s.sources[i].Volume)
		if err != nil {
			return err
		}
		if i == 0 {
			s.nodes = nodes
		}
		s.nodes = slices.DeleteFunc(s.nodes, func(n string) bool { return !slices.Contains(nodes, n) })
	}
	return nil
}
