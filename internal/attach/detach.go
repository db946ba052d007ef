package attach

import (
	"context"
	"errors"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// detach unpublishes a volume and removes our finalizer. It writes the status
// only if other finalizers keep the object.
func (r *Reconciler) detach(ctx context.Context, s state) error {
	if err := r.unpublish(ctx, s, s.published()); err != nil {
		return err
	}
	if s.hasOtherFinalizers(r.options) {
		if err := r.setDetached(ctx, s.attachment); err != nil {
			return err
		}
	}
	if err := r.removeFinalizer(ctx, s.attachment); err != nil {
		return err
	}
	r.resyncs.remove(s.attachment.Name)
	return nil
}

// removeFinalizer removes our finalizer from a VolumeAttachment.
func (r *Reconciler) removeFinalizer(ctx context.Context, a *storagev1.VolumeAttachment) error {
	return kube.WrapWriteError(kube.RemoveFinalizer(ctx, r.client, a, r.options.finalizer()), "removing the finalizer from the VolumeAttachment")
}

// unpublish detaches what was published for a VolumeAttachment. It succeeds if
// nothing is published, or if another VolumeAttachment has the same on record
// by now.
func (r *Reconciler) unpublish(ctx context.Context, s state, from record) error {
	err := r.callUnpublish(ctx, from, r.notRecordedElsewhere(s.attachment, from, time.Now()))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, csi.ErrPreconditionFailed):
		klog.FromContext(ctx).Info("Leaving a volume attached", "volumeAttachment", s.attachment.Name, "volumeHandle", from.handle, "node", from.nodeID, "reason", err.Error())
		return nil
	case status.Code(err) == codes.Unimplemented && !s.canPublish:
		r.events.Warning(s.eventTarget(), kube.ReasonFailedDetach, fmt.Sprintf(
			"VolumeAttachment %s: driver %s does not detach volumes any more; if volume %s is still attached to node %s, detach it at the storage", s.attachment.Name, r.options.Driver, from.handle, from.nodeID))
		return nil
	}
	gone, problem := r.isAlreadyGone(ctx, s, from, err)
	switch {
	case gone:
		return nil
	case problem != nil:
		return errors.Join(err, problem)
	}
	return err
}

// callUnpublish calls ControllerUnpublishVolume, if the precondition holds
// right before the call. A missing secret does not prevent the call: the driver
// decides whether it needs the secret.
func (r *Reconciler) callUnpublish(ctx context.Context, from record, precondition csi.Precondition) error {
	secrets, err := kube.SecretData(ctx, r.apiReader, from.secret)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	return r.driver.WithPrecondition(precondition).ControllerUnpublishVolume(ctx, &csipb.ControllerUnpublishVolumeRequest{
		VolumeId: from.handle, NodeId: from.nodeID, Secrets: secrets,
	})
}

// freshFor is how long an observed state is trusted. If the call is sent later
// than that, the VolumeAttachment is read again.
const freshFor = time.Second

// notRecordedElsewhere is the precondition of a detachment: no other
// VolumeAttachment has the same volume and node on record. The call may have
// waited for minutes. Meanwhile somebody may have removed the object by force
// and created it again under its name, and another process may have attached
// the volume for the new object. A machine that was renamed also has two node
// names.
func (r *Reconciler) notRecordedElsewhere(a *storagev1.VolumeAttachment, from record, observedAt time.Time) csi.Precondition {
	return func(ctx context.Context) error {
		names, err := r.othersOnSameNode(ctx, a, from)
		if err != nil {
			return err
		}
		if time.Since(observedAt) > freshFor {
			names = append(names, a.Name)
		}
		for _, name := range names {
			var current *storagev1.VolumeAttachment
			if err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKey{Name: name}, &current); err != nil {
				return err
			}
			if current != nil && current.UID != a.UID && r.hasOnRecord(current, from) {
				return fmt.Errorf("VolumeAttachment %s has the same volume and node on record: %w", name, csi.ErrPreconditionFailed)
			}
		}
		return nil
	}
}

// hasOnRecord reports whether a VolumeAttachment has a volume and node on
// record, and will detach it when it is deleted.
func (r *Reconciler) hasOnRecord(a *storagev1.VolumeAttachment, what record) bool {
	s := state{attachment: a}
	return r.isOurs(a) && !s.isDeleting() && s.hasFinalizer(r.options) && recordOf(a).isSame(what)
}

// othersOnSameNode returns other VolumeAttachments of the same volume that are
// not being deleted and whose node is the same machine, according to the cache.
// There are hardly ever any.
func (r *Reconciler) othersOnSameNode(ctx context.Context, a *storagev1.VolumeAttachment, from record) (names []string, err error) {
	if volumeName(a) == "" {
		return nil, nil
	}
	all, err := r.attachments(ctx, attachmentsByVolume, volumeName(a))
	if err != nil {
		return nil, err
	}
	for i := range all {
		other := &all[i]
		if other.Name == a.Name || other.DeletionTimestamp != nil {
			continue
		}
		var node *storagev1.CSINode
		if err := kube.GetIfExists(ctx, r.client, client.ObjectKey{Name: other.Spec.NodeName}, &node, client.UnsafeDisableDeepCopy); err != nil {
			return nil, err
		}
		if recordOf(other).nodeID == from.nodeID || node != nil && nodeID(node, r.options.Driver) == from.nodeID {
			names = append(names, other.Name)
		}
	}
	return names, nil
}

// isAlreadyGone reports whether an error means that nothing is left to detach:
// the driver returns NotFound, and the cluster does not have the volume or the
// node either. As long as the cluster has both, NotFound is an error that the
// user should see.
func (r *Reconciler) isAlreadyGone(ctx context.Context, s state, from record, err error) (bool, error) {
	if status.Code(err) != codes.NotFound {
		return false, nil
	}
	recreated := s.volume != nil && s.volume.Spec.CSI != nil && s.volume.Spec.CSI.VolumeHandle != from.handle
	if s.spec == nil || recreated {
		return true, nil
	}
	known, problem := r.isNodeKnown(ctx, from.nodeID)
	return !known && problem == nil, problem
}

// isNodeKnown reports whether some node of the cluster has this ID of the
// driver. Before it returns false it reads the nodes from the API server.
func (r *Reconciler) isNodeKnown(ctx context.Context, id string) (bool, error) {
	for _, from := range []client.Reader{r.client, r.apiReader} {
		nodes := &storagev1.CSINodeList{}
		if err := from.List(ctx, nodes); err != nil {
			return false, fmt.Errorf("listing CSINodes: %w", err)
		}
		for i := range nodes.Items {
			if nodeID(&nodes.Items[i], r.options.Driver) == id {
				return true, nil
			}
		}
	}
	return false, nil
}

// hasOtherFinalizers reports whether the VolumeAttachment stays when our
// finalizer is removed.
func (s *state) hasOtherFinalizers(o *Options) bool {
	for _, f := range s.attachment.Finalizers {
		if f != o.finalizer() {
			return true
		}
	}
	return false
}
