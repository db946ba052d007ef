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
	"github.com/holdfast-io/holdfast/internal/secretref"
)

// state is what is observed about one claim at one moment.
type state struct {
	claim     *corev1.PersistentVolumeClaim // nil if it does not exist
	class     *storagev1.StorageClass       // nil if it does not exist
	operation *pending.Operation            // nil if none is recorded
	volume    *corev1.PersistentVolume      // of the claim, or of the operation; nil if there is none
	info      csi.Info                      // capabilities of the driver
	started   time.Time                     // when the reconcile started

	source     *source.Resolved                 // what the volume is filled from; nil for nothing
	attributes *storagev1.VolumeAttributesClass // nil for none

	nodes    *placement.Nodes        // only with a driver that has topology
	selected *placement.NodeTopology // nil if the scheduler has selected none, or it is gone
}

// observe reads the state from the cache.
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
		return s, nil // The operation contains everything else.
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

// info returns the capabilities of the driver without those that options switch off.
func (r *Reconciler) info() csi.Info {
	info := r.driver.Info()
	if !r.options.Topology {
		return info.Without(csipb.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS)
	}
	return info
}

// get reads an object from the cache and reports whether it exists.
func (r *Reconciler) get(ctx context.Context, key types.NamespacedName, into client.Object) (bool, error) {
	err := r.client.Get(ctx, key, into)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("reading %s: %w", key, err)
	}
	return err == nil, nil
}

// observeVolume finds the volume of the claim, or of the operation, by the claim's UID. A
// volume's name depends on flags, and another program may have chosen it.
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

// volumeForClaim returns the cached volume of a claim, nil for none.
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

// observeNodes reads the topology of the nodes, if the driver has topology. The selected
// node is read from the cache for each claim: if it is gone the claim is rescheduled.
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

// observeOwnNode sets the only node that a node's own provisioner knows.
func (s *state) observeOwnNode(n *pernode.Node) {
	own := n.Topology()
	s.nodes = placement.NewNodes(own)
	if kube.SelectedNode(s.claim) == n.Name {
		s.selected = &own
	}
}

// hasTopology reports whether the driver's volumes are not accessible from everywhere.
func (s *state) hasTopology() bool {
	return s.info.HasService(csipb.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS)
}

// placement returns what the topology requirement of the claim's volume depends on.
func (s *state) placement(o *Options) placement.Input {
	return placement.Input{
		ClaimName: s.claim.Name, Selected: s.selected, Strict: o.StrictTopology || o.Node.Deployed, AllSegments: o.ImmediateTopology,
		Allowed: s.class.AllowedTopologies, Nodes: s.nodes,
	}
}

// waitsForFirstConsumer reports the volume binding mode of the claim's class.
func (s *state) waitsForFirstConsumer() bool {
	return s.class.VolumeBindingMode != nil && *s.class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// isWanted reports whether the claim of an operation still waits for a volume.
func (s *state) isWanted(op *pending.Operation) bool {
	return s.claim != nil && s.claim.UID == op.ClaimUID() && s.claim.DeletionTimestamp == nil
}

// canReschedule reports whether the scheduler can select another node for the claim of an
// operation.
func (s *state) canReschedule(op *pending.Operation) bool {
	return s.claim != nil && s.claim.UID == op.ClaimUID() && kube.SelectedNode(s.claim) != "" &&
		op.Request.GetAccessibilityRequirements() != nil
}

// observeReferences reads what only some claims refer to, from the API server.
func (r *Reconciler) observeReferences(ctx context.Context, s *state) (err error) {
	if s.class, err = r.options.Plugin.ClassToCSI(ctx, s.class); err != nil {
		return err
	}
	if secretref.NeedsAnnotations(s.class.Parameters) {
		if s.claim, err = r.withAnnotations(ctx, s.claim); err != nil {
			return err
		}
	}
	if from, supported := source.Of(s.claim); from != nil && supported {
		if s.source, err = r.sources.Resolve(ctx, *from, s.claim.Namespace); err != nil {
			return err
		}
	}
	if name := r.options.attributesClass(s.claim); name != "" {
		s.attributes, err = r.readAttributesClass(ctx, name)
	}
	return err
}

// withAnnotations returns a claim with all of its annotations, of which the cache has only
// some.
func (r *Reconciler) withAnnotations(ctx context.Context, claim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolumeClaim, error) {
	current := &corev1.PersistentVolumeClaim{}
	found, err := r.getUncached(ctx, client.ObjectKeyFromObject(claim), current)
	if err != nil || !found || current.UID != claim.UID {
		return claim, err
	}
	whole := claim.DeepCopy()
	whole.Annotations = current.Annotations
	return whole, nil
}

// readAttributesClass reads the VolumeAttributesClass that a claim names.
func (r *Reconciler) readAttributesClass(ctx context.Context, name string) (*storagev1.VolumeAttributesClass, error) {
	class := &storagev1.VolumeAttributesClass{}
	found, err := r.getUncached(ctx, types.NamespacedName{Name: name}, class)
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, fmt.Errorf("VolumeAttributesClass %q of the claim does not exist", name)
	case class.DriverName != r.options.Driver:
		return nil, fmt.Errorf("VolumeAttributesClass %q is for driver %s, and the StorageClass is of driver %s", name, class.DriverName, r.options.Driver)
	}
	return class, nil
}

// getUncached reads an object from the API server and reports whether it exists.
func (r *Reconciler) getUncached(ctx context.Context, key types.NamespacedName, into client.Object) (bool, error) {
	err := r.apiReader.Get(ctx, key, into)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("reading %s: %w", key, err)
	}
	return err == nil, nil
}
