package attach

import (
	"context"
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// observe reads a VolumeAttachment from the given source and all other objects
// from the cache. Objects of the cache must not be changed.
func (r *Reconciler) observe(ctx context.Context, from client.Reader, name string) (state, error) {
	s := state{canPublish: r.canPublish(), resyncRequested: r.resyncs.has(name)}
	attachment := &storagev1.VolumeAttachment{}
	if found, err := get(ctx, from, name, attachment); !found || err != nil {
		return s, err
	}
	s.attachment = attachment
	if err := r.observeVolume(ctx, &s); err != nil {
		return s, err
	}
	node := &storagev1.CSINode{}
	found, err := get(ctx, r.client, attachment.Spec.NodeName, node, client.UnsafeDisableDeepCopy)
	if found {
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
	volume := &corev1.PersistentVolume{}
	found, err := get(ctx, r.client, name, volume, client.UnsafeDisableDeepCopy)
	if found {
		s.volume, s.spec = volume, &volume.Spec
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

func get(ctx context.Context, from client.Reader, name string, into client.Object, o ...client.GetOption) (found bool, err error) {
	err = from.Get(ctx, types.NamespacedName{Name: name}, into, o...)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("reading %T %s: %w", into, name, err)
	}
	return err == nil, nil
}
