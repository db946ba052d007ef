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

// claimForThisNode has this node take a claim that any node may have, when its time has
// come and it has room. Until then nothing is written. Whoever loses is woken
// up by the claim, which has changed.
func (r *Reconciler) claimForThisNode(ctx context.Context, s state) (again time.Duration, err error) {
	if left := r.race.Wait(s.claim.UID); left > 0 {
		return left, nil
	}
	fits := r.hasCapacity(ctx, s)
	next, long := r.race.Tried(s.claim.UID)
	switch {
	case fits:
		return next, r.selectNode(ctx, s.claim)
	case long:
		return next, r.emitOnce(ctx, s.claim, noCapacity(s.claim))
	default:
		return next, nil
	}
}

// noCapacity is the same on every node, so that it is told once.
func noCapacity(claim *corev1.PersistentVolumeClaim) decision {
	return failWith("no node has taken the claim: none where the volume may be has room for %s; they go on trying",
		claim.Spec.Resources.Requests.Storage())
}

// hasCapacity asks the driver whether the volume would fit on this node. One that
// does not tell, or cannot now, is asked for the volume itself.
func (r *Reconciler) hasCapacity(ctx context.Context, s state) bool {
	if !s.info.Has(csipb.ControllerServiceCapability_RPC_GET_CAPACITY) {
		return true
	}
	request, err := capacityRequest(s, r.options)
	if err != nil {
		return true // It is wrong on every node: the one that takes the claim tells.
	}
	response, err := r.driver.GetCapacity(ctx, request)
	if err != nil {
		r.log.Error(err, "The room for a claim is not known; the driver is asked for the volume itself", "claim", client.ObjectKeyFromObject(s.claim))
		return true
	}
	return hasCapacityFor(response, s.claim.Spec.Resources.Requests.Storage().Value())
}

// capacityRequest asks about a volume as it would be made here.
func capacityRequest(s state, o *Options) (*csipb.GetCapacityRequest, error) {
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

// hasCapacityFor tells whether there is room for a volume of that many bytes.
func hasCapacityFor(capacity *csipb.GetCapacityResponse, bytes int64) bool {
	if largest := capacity.GetMaximumVolumeSize(); largest != nil && largest.GetValue() < bytes {
		return false
	}
	return capacity.GetAvailableCapacity() >= bytes
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

// emitOnce tells what every node could tell, once for all of them.
func (r *Reconciler) emitOnce(ctx context.Context, claim *corev1.PersistentVolumeClaim, d decision) error {
	kind := corev1.EventTypeNormal
	if d.reason == kube.ReasonProvisioningFailed {
		kind = corev1.EventTypeWarning
	}
	return r.events.EmitOnce(ctx, r.client, claim, kube.Event{Type: kind, Reason: d.reason, Message: d.message})
}

// isStillOurs asks the API server itself whether a claim is this node's, now that
// its intent keeps the others away. The cache may show a claim that this node
// has given back, and that another one has served since.
func (r *Reconciler) isStillOurs(ctx context.Context, s state) (bool, error) {
	if !r.options.Node.Deployed {
		return true, nil
	}
	now := &corev1.PersistentVolumeClaim{}
	there, err := r.getUncached(ctx, client.ObjectKeyFromObject(s.claim), now)
	return there && r.options.Node.IsSelectedFor(now, s.claim.UID), err
}
