package provision

import (
	"context"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/provision/pernode"
	"github.com/holdfast-io/holdfast/internal/provision/placement"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// state is all that is known about one claim at one moment.
type state struct {
	claim     *corev1.PersistentVolumeClaim // nil if it is gone
	class     *storagev1.StorageClass       // nil if there is none of that name
	operation *pending.Operation            // nil if none is on record
	volume    *corev1.PersistentVolume      // for the claim, or the intent's; nil if there is none
	info      csi.Info                      // what the driver can
	started   time.Time                     // when it was looked at

	source     *source.Resolved                 // what the claim is to be filled from; nil for nothing
	attributes *storagev1.VolumeAttributesClass // nil for none

	nodes    *placement.Nodes        // only with a driver that has topology
	selected *placement.NodeTopology // nil while the scheduler has selected none, or its node is gone
}

// observe reads everything from the cache.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (state, error) {
	s := state{info: r.info(), started: time.Now()}
	claim := &corev1.PersistentVolumeClaim{}
	found, err := r.get(ctx, key, claim)
	if err != nil {
		return s, err
	}
	if found {
		s.claim = claim
	}
	if s.operation, err = r.pending.Find(ctx, key, s.claim); err != nil {
		return s, err
	}
	if err := r.observeVolume(ctx, &s); err != nil {
		return s, err
	}
	if s.claim == nil || s.operation != nil {
		return s, nil // An intent holds all that it needs.
	}
	class := &storagev1.StorageClass{}
	if found, err = r.get(ctx, types.NamespacedName{Name: kube.ClaimClass(s.claim)}, class); err != nil {
		return s, err
	}
	if found {
		s.class = class
	}
	return s, r.observeNodes(ctx, &s)
}

// info is what the driver announces and the options let count.
func (r *Reconciler) info() csi.Info {
	info := r.driver.Info()
	if !r.options.Topology {
		return info.Without(csipb.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS)
	}
	return info
}

func (r *Reconciler) get(ctx context.Context, key types.NamespacedName, into client.Object) (bool, error) {
	err := r.client.Get(ctx, key, into)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("reading %s: %w", key, err)
	}
	return err == nil, nil
}

// observeVolume finds the volume of the claim, or of the intent, by the claim's
// UID: a volume's name depends on a flag, and may have been given by another
// program.
func (r *Reconciler) observeVolume(ctx context.Context, s *state) error {
	var uid types.UID
	switch {
	case s.operation != nil:
		uid = s.operation.ClaimUID()
	case s.claim != nil:
		uid = s.claim.UID
	default:
		return nil
	}
	var err error
	s.volume, err = r.volumeForClaim(ctx, uid)
	return err
}

// volumeForClaim is the volume for a claim, nil if the cache has none.
func (r *Reconciler) volumeForClaim(ctx context.Context, claim types.UID) (*corev1.PersistentVolume, error) {
	volumes := &corev1.PersistentVolumeList{}
	if err := r.client.List(ctx, volumes, client.MatchingFields{volumesByClaim: string(claim)}); err != nil {
		return nil, fmt.Errorf("reading the volumes of claim %s: %w", claim, err)
	}
	if len(volumes.Items) == 0 {
		return nil, nil
	}
	return &volumes.Items[0], nil
}

// observeNodes reads the driver's topology, if it has one. The selected node is
// always looked at: one that is missing is asked to be replaced.
func (r *Reconciler) observeNodes(ctx context.Context, s *state) (err error) {
	if o := &r.options.Node; o.Deployed {
		s.observeOwnNode(o)
		return nil
	}
	if !s.hasTopology() {
		return nil
	}
	if s.nodes, err = r.nodes.Nodes(ctx); err != nil {
		return err
	}
	if name := kube.SelectedNode(s.claim); name != "" {
		s.selected, err = r.nodes.Node(ctx, name)
	}
	return err
}

// observeOwnNode is all that a node's own provisioner knows of nodes.
func (s *state) observeOwnNode(n *pernode.Node) {
	own := n.Topology()
	s.nodes = placement.NewNodes(own)
	if kube.SelectedNode(s.claim) == n.Name {
		s.selected = &own
	}
}

// hasTopology tells whether the driver's volumes are not the same everywhere.
func (s *state) hasTopology() bool {
	return s.info.HasService(csipb.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS)
}

// placement is what decides where the claim's volume may be.
func (s *state) placement(o *Options) placement.Input {
	return placement.Input{
		ClaimName: s.claim.Name, Selected: s.selected, Strict: o.StrictTopology || o.Node.Deployed, AllSegments: o.ImmediateTopology,
		Allowed: s.class.AllowedTopologies, Nodes: s.nodes,
	}
}

// waitsForFirstConsumer tells whether the claim's class waits for the first consumer.
func (s *state) waitsForFirstConsumer() bool {
	return s.class.VolumeBindingMode != nil && *s.class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}
