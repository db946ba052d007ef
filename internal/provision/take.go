package provision

import (
	"context"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// take has this node take a claim that any node may have, when its time has
// come and it has room. Until then nothing is written. Whoever loses is woken
// up by the claim, which has changed.
func (r *Reconciler) take(ctx context.Context, s seen) (again time.Duration, err error) {
	if left := r.race.left(s.claim.UID); left > 0 {
		return left, nil
	}
	roomy := r.hasRoom(ctx, s)
	next, long := r.race.tried(s.claim.UID)
	switch {
	case roomy:
		return next, r.selectNode(ctx, s.claim)
	case long:
		return next, r.announce(ctx, s.claim, noRoom(s.claim))
	default:
		return next, nil
	}
}

// noRoom is the same on every node, so that it is told once.
func noRoom(claim *corev1.PersistentVolumeClaim) step {
	return fail("no node has taken the claim: none where the volume may be has room for %s; they go on trying",
		claim.Spec.Resources.Requests.Storage())
}

// hasRoom asks the driver whether the volume would fit on this node. One that
// does not tell, or cannot now, is asked for the volume itself.
func (r *Reconciler) hasRoom(ctx context.Context, s seen) bool {
	if !s.info.Has(csipb.ControllerServiceCapability_RPC_GET_CAPACITY) {
		return true
	}
	question, err := capacityRequest(s, r.options)
	if err != nil {
		return true // It is wrong on every node: the one that takes the claim tells.
	}
	answer, err := r.driver.GetCapacity(ctx, question)
	if err != nil {
		r.log.Error(err, "The room for a claim is not known; the driver is asked for the volume itself", "claim", client.ObjectKeyFromObject(s.claim))
		return true
	}
	return fits(answer, s.claim.Spec.Resources.Requests.Storage().Value())
}

// capacityRequest asks about a volume as it would be made here.
func capacityRequest(s seen, o *Options) (*csipb.GetCapacityRequest, error) {
	fs, err := fsType(s.class.Parameters, o.DefaultFSType)
	if err != nil {
		return nil, err
	}
	kinds, err := capabilities(s, fs)
	if err != nil {
		return nil, err
	}
	parameters, err := driverParameters(s.class.Parameters)
	return &csipb.GetCapacityRequest{
		VolumeCapabilities: kinds, Parameters: parameters, AccessibleTopology: &csipb.Topology{Segments: o.Node.Segment},
	}, err
}

// fits tells whether there is room for a volume of that many bytes.
func fits(room *csipb.GetCapacityResponse, bytes int64) bool {
	if largest := room.GetMaximumVolumeSize(); largest != nil && largest.GetValue() < bytes {
		return false
	}
	return room.GetAvailableCapacity() >= bytes
}

// selectNode writes this node's name on the claim, as it was seen: if it has
// changed meanwhile somebody else has it, or nobody needs it.
func (r *Reconciler) selectNode(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	claim = claim.DeepCopy()
	if claim.Annotations == nil {
		claim.Annotations = map[string]string{}
	}
	claim.Annotations[kube.AnnSelectedNode] = r.options.Node.Name
	err := r.client.Update(ctx, claim)
	if err == nil || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("taking the claim for node %s: %w", r.options.Node.Name, err)
}

// announce tells what every node could tell, once for all of them.
func (r *Reconciler) announce(ctx context.Context, claim *corev1.PersistentVolumeClaim, what step) error {
	kind := corev1.EventTypeNormal
	if what.reason == kube.ReasonProvisioningFailed {
		kind = corev1.EventTypeWarning
	}
	return r.events.EmitOnce(ctx, r.client, claim, kube.Event{Type: kind, Reason: what.reason, Message: what.message})
}

// stillOurs asks the API server itself whether a claim is this node's, now that
// its intent keeps the others away. The cache may show a claim that this node
// has given back, and that another one has served since.
func (r *Reconciler) stillOurs(ctx context.Context, s seen) (bool, error) {
	if !r.options.Node.Deployed {
		return true, nil
	}
	now := &corev1.PersistentVolumeClaim{}
	there, err := r.getLive(ctx, client.ObjectKeyFromObject(s.claim), now)
	return there && r.options.Node.has(now, s.claim.UID), err
}
