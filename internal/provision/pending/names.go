package pending

import (
	"context"
	"fmt"
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// reservedNames are the names of volumes whose operations the cache may not show yet,
// with the claims that have reserved them.
type reservedNames struct {
	mu     sync.Mutex
	byName map[string]types.UID
}

// reserve reserves a name for a claim and reports whether the claim has it now.
func (n *reservedNames) reserve(name string, claim types.UID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if holder, reserved := n.byName[name]; reserved {
		return holder == claim
	}
	if n.byName == nil {
		n.byName = map[string]types.UID{}
	}
	n.byName[name] = claim
	return true
}

// release releases a name if the claim has it.
func (n *reservedNames) release(name string, claim types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byName[name] == claim {
		delete(n.byName, name)
	}
}

// ReserveName makes sure that no other claim has the name of the operation's volume.
// Drivers identify volumes by name (CSI spec, CreateVolume): they would return one
// volume for both claims.
func (s *Store) ReserveName(ctx context.Context, op *Operation) error {
	if !s.NamesCollide {
		return nil
	}
	name, uid := op.Volume.Name, op.ClaimUID()
	if !s.names.reserve(name, uid) {
		return collisionError(name, "another claim, whose volume is being made")
	}
	holder, err := s.nameHolder(ctx, name, uid)
	if err == nil && holder != "" {
		err = collisionError(name, holder)
	}
	if err != nil {
		s.names.release(name, uid)
	}
	return err
}

// ReleaseName releases the name of the operation's volume.
func (s *Store) ReleaseName(op *Operation) { s.names.release(op.Volume.Name, op.ClaimUID()) }

// nameHolder returns what else has a volume's name, "" for nothing.
func (s *Store) nameHolder(ctx context.Context, name string, claim types.UID) (string, error) {
	leases := &coordinationv1.LeaseList{}
	if err := s.Client.List(ctx, leases, client.InNamespace(s.Namespace), client.MatchingFields{byVolume: name}); err != nil {
		return "", fmt.Errorf("reading the pending operations for volume %s: %w", name, err)
	}
	for i := range leases.Items {
		if lease := &leases.Items[i]; lease.Name != LeaseName(claim) && !s.isDeleted(lease) {
			return "claim " + lease.Annotations[claimAnnotation], nil
		}
	}
	var volume *corev1.PersistentVolume
	if err := kube.GetIfExists(ctx, s.APIReader, types.NamespacedName{Name: name}, &volume); err != nil || volume == nil {
		return "", err
	}
	if ref := volume.Spec.ClaimRef; ref != nil && ref.UID == claim {
		return "", nil
	}
	return "a PersistentVolume", nil
}

func collisionError(name, holder string) error {
	return fmt.Errorf("the volume's name %s is taken by %s: raise --volume-name-uuid-length, or create the claim again", name, holder)
}
