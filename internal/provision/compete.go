package provision

import (
	"context"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pernode"
)

// claimForThisNode selects this node for a claim that any node may serve, once the delay
// of the race is over and if the driver has capacity. Before that it writes nothing. The
// update of the claim starts a reconcile on the nodes that lost.
func (r *Reconciler) claimForThisNode(ctx context.Context, s state) (after time.Duration, err error) {
	if left := r.race.Wait(s.claim.UID); left > 0 {
		return left, nil
	}
	fits := r.hasCapacity(ctx, s)
	next, long := r.race.Tried(s.claim.UID)
	switch {
	case fits:
		return next, r.options.Node.Select(ctx, r.apiReader, r.client, s.claim)
	case long:
		return next, r.emitOnce(ctx, s.claim, noCapacity(s.claim))
	default:
		return next, nil
	}
}

// noCapacity is the same on every node, so that the event is emitted once.
func noCapacity(claim *corev1.PersistentVolumeClaim) decision {
	return failWith("no node has taken the claim: none of the nodes where the volume may be has room for %s; they keep trying",
		claim.Spec.Resources.Requests.Storage())
}

// hasCapacity calls GetCapacity to find out whether the volume fits on this node. If the
// driver does not support it, or the call fails, CreateVolume will show it.
func (r *Reconciler) hasCapacity(ctx context.Context, s state) bool {
	if !s.info.Has(csipb.ControllerServiceCapability_RPC_GET_CAPACITY) {
		return true
	}
	request, err := capacityRequest(s, r.options)
	if err != nil {
		return true // The error is the same on every node; the node that gets the claim reports it.
	}
	response, err := r.driver.GetCapacity(ctx, request)
	if err != nil {
		r.log.Error(err, "GetCapacity failed; calling CreateVolume all the same", "claim", client.ObjectKeyFromObject(s.claim))
		return true
	}
	return pernode.HasCapacityFor(response, kube.BytesAtMost(*s.claim.Spec.Resources.Requests.Storage()))
}

// capacityRequest returns the GetCapacity request for the volume on this node.
func capacityRequest(s state, o *Options) (*csipb.GetCapacityRequest, error) {
	fs, err := fsType(s.class.Parameters, o.DefaultFSType)
	if err != nil {
		return nil, err
	}
	volumeCapabilities, err := capabilities(s, fs)
	if err != nil {
		return nil, err
	}
	parameters, err := driverParameters(s.class.Parameters)
	return &csipb.GetCapacityRequest{
		VolumeCapabilities: volumeCapabilities, Parameters: parameters, AccessibleTopology: &csipb.Topology{Segments: o.Node.Segment},
	}, err
}
