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
	// uidLength is the length of a UID without its dashes.
	uidLength = 32
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

// truncatesUID tells whether two claims can come to the same name.
func (o *Options) truncatesUID() bool { return o.NameLength != wholeUID && o.NameLength < uidLength }

// reservedNames are those of the volumes that are being made, by the claim. It bridges
// the moment until the cache shows the intents.
type reservedNames struct {
	mu     sync.Mutex
	byName map[string]types.UID
}

// reserve reserves a name for a claim and reports whether it has it now.
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

// release gives a name back, if the claim has it.
func (n *reservedNames) release(name string, claim types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byName[name] == claim {
		delete(n.byName, name)
	}
}

// reserveName makes sure that no other claim has the name of an intent's volume. To
// a driver the name is the volume (CSI, CreateVolume): asked twice under one
// name it would give both claims the same one.
func (r *Reconciler) reserveName(ctx context.Context, op *Operation) error {
	if !r.options.truncatesUID() {
		return nil
	}
	name, uid := op.Volume.Name, op.ClaimUID()
	if !r.names.reserve(name, uid) {
		return collisionError(name, "another claim, whose volume is being made")
	}
	holder, err := r.nameHolder(ctx, name, uid)
	if err == nil && holder != "" {
		err = collisionError(name, holder)
	}
	if err != nil {
		r.names.release(name, uid)
	}
	return err
}

// nameHolder is who else has a volume's name, "" for nobody.
func (r *Reconciler) nameHolder(ctx context.Context, name string, claim types.UID) (string, error) {
	leases := &coordinationv1.LeaseList{}
	if err := r.client.List(ctx, leases, client.InNamespace(r.pending.namespace), client.MatchingFields{operationsByVolume: name}); err != nil {
		return "", fmt.Errorf("reading the intents for volume %s: %w", name, err)
	}
	for i := range leases.Items {
		if lease := &leases.Items[i]; lease.Name != LeaseName(claim) && !r.pending.IsDeleted(lease) {
			return "claim " + lease.Annotations[claimAnnotation], nil
		}
	}
	volume := &corev1.PersistentVolume{}
	there, err := r.getUncached(ctx, types.NamespacedName{Name: name}, volume)
	if ref := volume.Spec.ClaimRef; err != nil || !there || ref != nil && ref.UID == claim {
		return "", err
	}
	return "a PersistentVolume", nil
}

func collisionError(name, holder string) error {
	return fmt.Errorf("the volume's name %s is taken by %s: raise --volume-name-uuid-length, or make the claim anew", name, holder)
}
