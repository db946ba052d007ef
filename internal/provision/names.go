package provision

import (
	"context"
	"fmt"
	"strings"
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// wholeUID is the length that leaves the UID in a volume's name as it is.
	wholeUID = -1
	// longestName is the length of a UID without its dashes.
	longestName = 32
)

// volumeName is the same for every try, here and after any restart, as long as
// the flags are. Nothing is found by it: see volumesByClaim and intentName.
func (o *Options) volumeName(claim *corev1.PersistentVolumeClaim) string {
	id := string(claim.UID)
	if o.NameLength != wholeUID {
		id = strings.ReplaceAll(id, "-", "")
		id = id[:min(len(id), o.NameLength)]
	}
	return o.VolumeNamePrefix + "-" + id
}

// cuts tells whether two claims can come to the same name.
func (o *Options) cuts() bool { return o.NameLength != wholeUID && o.NameLength < longestName }

// names are those of the volumes that are being made, by the claim. It bridges
// the moment until the cache shows the intents.
type names struct {
	mu    sync.Mutex
	taken map[string]types.UID
}

// take reserves a name for a claim and reports whether it has it now.
func (n *names) take(name string, claim types.UID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if by, taken := n.taken[name]; taken {
		return by == claim
	}
	if n.taken == nil {
		n.taken = map[string]types.UID{}
	}
	n.taken[name] = claim
	return true
}

// free gives a name back, if the claim has it.
func (n *names) free(name string, claim types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.taken[name] == claim {
		delete(n.taken, name)
	}
}

// reserve makes sure that no other claim has the name of an intent's volume. To
// a driver the name is the volume (CSI, CreateVolume): asked twice under one
// name it would give both claims the same one.
func (r *Reconciler) reserve(ctx context.Context, i *intent) error {
	if !r.options.cuts() {
		return nil
	}
	name, uid := i.volume.Name, i.claimUID()
	if !r.names.take(name, uid) {
		return collision(name, "another claim, whose volume is being made")
	}
	by, err := r.holder(ctx, name, uid)
	if err == nil && by != "" {
		err = collision(name, by)
	}
	if err != nil {
		r.names.free(name, uid)
	}
	return err
}

// holder is who else has a volume's name, "" for nobody.
func (r *Reconciler) holder(ctx context.Context, name string, claim types.UID) (string, error) {
	leases := &coordinationv1.LeaseList{}
	if err := r.client.List(ctx, leases, client.InNamespace(r.journal.namespace), client.MatchingFields{intentsByVolume: name}); err != nil {
		return "", fmt.Errorf("reading the intents for volume %s: %w", name, err)
	}
	for i := range leases.Items {
		if lease := &leases.Items[i]; lease.Name != intentName(claim) && !r.journal.isErased(lease) {
			return "claim " + lease.Annotations[claimAnnotation], nil
		}
	}
	volume := &corev1.PersistentVolume{}
	there, err := r.getLive(ctx, types.NamespacedName{Name: name}, volume)
	if ref := volume.Spec.ClaimRef; err != nil || !there || ref != nil && ref.UID == claim {
		return "", err
	}
	return "a PersistentVolume", nil
}

func collision(name, by string) error {
	return fmt.Errorf("the volume's name %s is taken by %s: raise --volume-name-uuid-length, or make the claim anew", name, by)
}
