package reclaim

import (
	"context"
	"errors"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// errCannotLocate means that the driver has no call that shows whether a volume
// exists.
var errCannotLocate = errors.New("the driver cannot tell whether it has a volume")

// locateOrReport handles a volume that this process must not delete, or not
// yet: it finds out whether the volume is on this node, or reports which
// provisioner has to delete it. It returns the delay until the next attempt.
func (r *Reconciler) locateOrReport(ctx context.Context, volume *corev1.PersistentVolume, next action) (time.Duration, error) {
	handle, err := r.volumeHandle(ctx, volume)
	if err != nil {
		return 0, err
	}
	switch next {
	case reportOtherProvisioner:
		return r.reportOverdue(ctx, volume, otherProvisionerMessage(volume, r.options))
	case reportOtherNode:
		_, node := r.options.locationOf(volume)
		return r.reportOverdue(ctx, volume, otherNodeMessage(volume, node, handle))
	default:
		return r.locate(ctx, volume, handle)
	}
}

// locate finds out whether the volume is on this node.
func (r *Reconciler) locate(ctx context.Context, volume *corev1.PersistentVolume, handle string) (time.Duration, error) {
	found, err := r.driverHasVolume(ctx, handle)
	switch {
	case errors.Is(err, errCannotLocate):
		return r.nextReport(), r.report(ctx, volume, cannotLocateMessage(volume, r.options.Driver, handle))
	case err != nil:
		err = fmt.Errorf("finding the node of volume %s, because neither the node affinity nor annotation %s names one: %w", handle, NodeAnnotation, err)
		return 0, errors.Join(err, r.report(ctx, volume, kube.Message(err)))
	case found:
		return 0, r.recordNode(ctx, volume)
	default:
		again, err := r.reportOverdue(ctx, volume, notFoundMessage(volume, handle))
		return min(again, r.options.RetryMax), err
	}
}

// driverHasVolume reports whether the driver of this node has a volume that
// this node can reach. DeleteVolume may only be called for such a volume.
func (r *Reconciler) driverHasVolume(ctx context.Context, handle string) (bool, error) {
	info := r.driver.Info()
	if info.Has(csipb.ControllerServiceCapability_RPC_GET_VOLUME) {
		response, err := r.driver.ControllerGetVolume(ctx, handle)
		switch code := csi.CodeOf(err); {
		case err == nil:
			return r.isReachable(response.GetVolume()), nil
		case code == codes.NotFound:
			return false, nil
		case code != codes.Unimplemented: // Some drivers announce a call that they do not implement.
			return false, err
		}
	}
	if !info.Has(csipb.ControllerServiceCapability_RPC_LIST_VOLUMES) {
		return false, errCannotLocate
	}
	for entry, err := range r.driver.ListVolumes(ctx, 0) {
		if csi.CodeOf(err) == codes.Unimplemented {
			return false, errCannotLocate
		}
		if err != nil {
			return false, err
		}
		if entry.GetVolume().GetVolumeId() == handle {
			return r.isReachable(entry.GetVolume()), nil
		}
	}
	return false, nil
}

// isReachable reports whether a volume is accessible from this node. A driver
// may also know the volumes of other nodes, and return their topology.
func (r *Reconciler) isReachable(volume *csipb.Volume) bool {
	return r.options.Segment.CanReach(topology.NodeAffinity(volume.GetAccessibleTopology()))
}

// recordNode records that this node has the volume, before DeleteVolume is
// called: the driver cannot show it afterwards. The write enqueues the volume.
func (r *Reconciler) recordNode(ctx context.Context, volume *corev1.PersistentVolume) error {
	observed := volume.DeepCopy()
	if volume.Annotations == nil {
		volume.Annotations = map[string]string{}
	}
	volume.Annotations[NodeAnnotation] = r.options.Node
	err := r.client.Patch(ctx, volume, client.MergeFromWithOptions(observed, client.MergeFromWithOptimisticLock{}))
	return r.reportWrite(volume, "writing annotation "+NodeAnnotation+" of", err)
}

// reportOverdue emits an event about a volume that was released long ago. By
// then every running node has looked for it.
func (r *Reconciler) reportOverdue(ctx context.Context, volume *corev1.PersistentVolume, message string) (time.Duration, error) {
	if left := 2*r.options.RetryMax - time.Since(releasedAt(volume)); left > 0 {
		return left, nil
	}
	return r.nextReport(), r.report(ctx, volume, message)
}

// releasedAt returns when a volume was released, or its creation time if that
// is unknown.
func releasedAt(volume *corev1.PersistentVolume) time.Time {
	if at := volume.Status.LastPhaseTransitionTime; at != nil {
		return at.Time
	}
	return volume.CreationTimestamp.Time
}

// nextReport returns the delay until the next attempt after an event: about as
// long as the API server keeps events, and with jitter, so that the nodes
// differ.
func (r *Reconciler) nextReport() time.Duration {
	return wait.Jitter(12*r.options.RetryMax, 0.5)
}

// report emits an event once for all nodes, because every node would emit the
// same.
func (r *Reconciler) report(ctx context.Context, volume *corev1.PersistentVolume, message string) error {
	return r.events.EmitOnce(ctx, r.client, volume, kube.Event{
		Type: corev1.EventTypeWarning, Reason: kube.ReasonVolumeFailedDelete, Message: message,
	})
}

// cannotLocateMessage, notFoundMessage and otherNodeMessage return the same text on
// every node, so that the event is emitted once.
func cannotLocateMessage(volume *corev1.PersistentVolume, driver, handle string) string {
	return fmt.Sprintf("volume %s is not deleted, because nobody can tell which node has it: neither the node affinity of the PersistentVolume nor its annotations name one node, "+
		"and driver %s announces neither GET_VOLUME nor LIST_VOLUMES. %s", handle, driver, remedies(volume))
}

func notFoundMessage(volume *corev1.PersistentVolume, handle string) string {
	return fmt.Sprintf("volume %s is not deleted, because no node's driver has found it and the PersistentVolume does not name its node: "+
		"the node is down, or the volume is gone already. The volume is deleted when a driver finds it. %s", handle, remedies(volume))
}

func otherNodeMessage(volume *corev1.PersistentVolume, node, handle string) string {
	return fmt.Sprintf("volume %s is left to the provisioner of node %s, which created or found it there and has not deleted it yet. "+
		"If that node is down, the volume is deleted when it is back. If another node has the volume now, name that node. %s", handle, node, remedies(volume))
}

func otherProvisionerMessage(volume *corev1.PersistentVolume, o *Options) string {
	names := o.Driver
	if o.Provisioner != o.Driver {
		names = o.Provisioner + " and " + o.Driver
	}
	return fmt.Sprintf("volume %s is not deleted by this provisioner, which deletes volumes of %s: annotation %s says that %s provisioned it. "+
		"Run a provisioner with --provisioner=%[4]s for the driver. If that provisioner was removed for good: kubectl annotate --overwrite pv %s %[3]s=%s",
		volume.Spec.CSI.VolumeHandle, names, kube.AnnProvisionedBy, volume.Annotations[kube.AnnProvisionedBy], volume.Name, o.Driver)
}

func remedies(volume *corev1.PersistentVolume) string {
	return fmt.Sprintf("To name the node: kubectl annotate --overwrite pv %s %s=NODE. "+
		"To delete only the PersistentVolume, even if the volume stays on a node: set its persistentVolumeReclaimPolicy to Retain, then delete it", volume.Name, NodeAnnotation)
}
