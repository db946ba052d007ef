package pernode

import (
	"context"
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// HasCapacityFor reports whether a volume of that many bytes fits.
func HasCapacityFor(capacity *csipb.GetCapacityResponse, bytes int64) bool {
	if largest := capacity.GetMaximumVolumeSize(); largest != nil && largest.GetValue() < bytes {
		return false
	}
	return capacity.GetAvailableCapacity() >= bytes
}

// Select writes this node's name to a claim as it was observed. A conflict is no error:
// then another node has the claim, or the claim needs no volume any more. The claim is read
// again because it is updated as a whole, and the cache lacks some of its annotations.
func (n *Node) Select(ctx context.Context, apiReader client.Reader, c client.Client, observed *corev1.PersistentVolumeClaim) error {
	var claim *corev1.PersistentVolumeClaim
	err := kube.GetIfExists(ctx, apiReader, client.ObjectKeyFromObject(observed), &claim)
	if err != nil || claim == nil || claim.UID != observed.UID || claim.ResourceVersion != observed.ResourceVersion {
		return err
	}
	if claim.Annotations == nil {
		claim.Annotations = map[string]string{}
	}
	claim.Annotations[kube.AnnSelectedNode] = n.Name
	err = c.Update(ctx, claim)
	if err == nil || kube.IsStale(err) {
		return nil
	}
	return fmt.Errorf("selecting node %s for the claim: %w", n.Name, err)
}

// IsStillSelected reads from the API server whether an observed claim still waits for a
// volume on this node. The cache may show a claim that this node has given back, and
// that another node has served since. The result stays true while this node has a
// pending operation for the claim, because that keeps the other nodes away.
func (n *Node) IsStillSelected(ctx context.Context, apiReader client.Reader, observed *corev1.PersistentVolumeClaim) (bool, error) {
	if !n.Deployed {
		return true, nil
	}
	var claim *corev1.PersistentVolumeClaim
	err := kube.GetIfExists(ctx, apiReader, client.ObjectKeyFromObject(observed), &claim)
	return claim != nil && n.IsSelectedFor(claim, observed.UID), err
}
