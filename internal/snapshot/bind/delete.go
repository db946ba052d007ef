package bind

import (
	"context"
	"fmt"
	"slices"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// release lets the content go. A snapshot whose content stays is not needed for
// that any more.
func (r *Reconciler) release(ctx context.Context, s *seen) error {
	if err := r.giveUp(ctx, s); err != nil || !s.retained() {
		return err
	}
	return r.letGo(ctx, s)
}

// giveUp gives the driver's half our word that the content may go, and deletes it
// if that is its policy.
func (r *Reconciler) giveUp(ctx context.Context, s *seen) error {
	if err := snapshot.Single.Permit(ctx, r.client, s.content); err != nil {
		return err
	}
	if s.retained() || s.content.DeletionTimestamp != nil {
		return nil
	}
	err := r.client.Delete(ctx, s.content, client.Preconditions{UID: &s.content.UID})
	if client.IgnoreNotFound(err) != nil {
		r.events.Warning(s.snapshot, reasonContentDelete, fmt.Sprintf("VolumeSnapshotContent %s could not be deleted: %v", s.content.Name, err))
		return fmt.Errorf("deleting VolumeSnapshotContent %s: %w", s.content.Name, err)
	}
	return nil
}

// letGo takes our finalizers off the snapshot. That the cache shows no content of
// its own is not enough: it may have been made, or bound, a moment ago.
func (r *Reconciler) letGo(ctx context.Context, s *seen) error {
	if !s.bound() {
		s.content = nil
		if err := kube.Read(ctx, r.live, client.ObjectKey{Name: s.contentName()}, &s.content); err != nil {
			return err
		}
		if s.bound() {
			return r.release(ctx, s)
		}
	}
	left := slices.DeleteFunc(slices.Clone(s.snapshot.Finalizers), func(f string) bool { return slices.Contains(finalizers, f) })
	err := kube.Merge(ctx, r.client, s.snapshot, map[string]any{"metadata": map[string]any{
		"resourceVersion": s.snapshot.ResourceVersion, "finalizers": left,
	}})
	if err == nil {
		r.ended(ctx, s)
	}
	return kube.Written(client.IgnoreNotFound(err), "letting the snapshot go")
}

// Restores are the claims that wait for a volume from a snapshot, in whatever
// namespace. The reader is the cache of a manager that Setup was called for.
func Restores(ctx context.Context, from client.Reader, of *snapshotv1.VolumeSnapshot) ([]string, error) {
	claims := &corev1.PersistentVolumeClaimList{}
	if err := from.List(ctx, claims, client.MatchingFields{claimsBySnapshot: of.Namespace + "/" + of.Name}); err != nil {
		return nil, fmt.Errorf("listing the claims that wait for a volume from snapshot %s/%s: %w", of.Namespace, of.Name, err)
	}
	var names []string
	for i := range claims.Items {
		names = append(names, claims.Items[i].Namespace+"/"+claims.Items[i].Name)
	}
	slices.Sort(names)
	return names, nil
}
