package controller

import (
	"context"
	"fmt"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/internal/snapshot/claimprotection"
)

var _ claimprotection.ClaimUser = (*singleKind)(nil)

// AddClaimFinalizers implements SnapshotKind.
func (k *singleKind) AddClaimFinalizers(ctx context.Context, sources []snapshot.Source) (unlock func(), err error) {
	return k.claims.AddFinalizers(ctx, sources)
}

// NeedsClaim implements claimprotection.ClaimUser: a snapshot of the claim is not taken
// yet. The cache may not show that a snapshot has just got its finalizers, and such a
// snapshot relies on the claim's protection. So a snapshot without finalizers is read
// from the API server.
func (k *singleKind) NeedsClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) (by string, recheckAfter time.Duration, err error) {
	list := &snapshotv1.VolumeSnapshotList{}
	if err := k.client.List(ctx, list, client.InNamespace(claim.Namespace), client.MatchingFields{snapshotsByClaim: claim.Name}); err != nil {
		return "", 0, fmt.Errorf("listing the snapshots of claim %s: %w", claim.Name, err)
	}
	for i := range list.Items {
		s := &list.Items[i]
		if len(s.Finalizers) == 0 {
			if err := kube.GetIfExists(ctx, k.apiReader, client.ObjectKeyFromObject(s), &s); err != nil {
				return "", 0, err
			}
		}
		if needsClaim(s) && snapshot.MatchesClaim(s, claim) {
			return "VolumeSnapshot " + s.Name, 0, nil
		}
	}
	return "", 0, nil
}

// needsClaim reports whether a snapshot's claim must stay, because the snapshot is not
// taken yet. The group of a member protects the member's claim.
func needsClaim(s *snapshotv1.VolumeSnapshot) bool {
	return len(s.Finalizers) > 0 && !isTaken(s) && !isMember(s)
}
