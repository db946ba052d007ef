package attach

import (
	"context"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// observe reads a VolumeAttachment from the given source and all other objects
// from the cache. Objects of the cache must not be changed.
func (r *Reconciler) observe(ctx context.Context, from client.Reader, name string) (state, error) {
	s := state{canPublish: r.canPublish(), resyncRequested: r.resyncs.has(name)}
	if err := kube.GetIfExists(ctx, from, client.ObjectKey{Name: name}, &s.attachment); err != nil || s.attachment == nil {
		return s, err
	}
	if err := r.observeVolume(ctx, &s); err != nil {
		return s, err
	}
	var node *storagev1.CSINode
	err := kube.GetIfExists(ctx, r.client, client.ObjectKey{Name: s.attachment.Spec.NodeName}, &node, client.UnsafeDisableDeepCopy)
	if node != nil {
		s.nodeID = nodeID(node, r.options.Driver)
	}
	s.translate(ctx, r.options.Plugin)
	return s, err
}

func (r *Reconciler) observeVolume(ctx context.Context, s *state) error {
	s.spec = s.attachment.Spec.Source.InlineVolumeSpec
	name := volumeName(s.attachment)
	if name == "" || s.spec != nil {
		return nil
	}
	err := kube.GetIfExists(ctx, r.client, client.ObjectKey{Name: name}, &s.volume, client.UnsafeDisableDeepCopy)
	if s.volume != nil {
		s.spec = &s.volume.Spec
	}
	return err
}

// canPublish reports whether the driver has to be called to attach a volume.
func (r *Reconciler) canPublish() bool {
	return r.driver.Info().Has(csipb.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME)
}

// nodeID returns the driver's ID of a node, and "" if the node does not have
// the driver.
func nodeID(node *storagev1.CSINode, driver string) string {
	for _, d := range node.Spec.Drivers {
		if d.Name == driver {
			return d.NodeID
		}
	}
	return ""
}
