package crash

import (
	"context"
	"fmt"
	"slices"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// attachTo attaches the volumes of all wanted claims to the node of a zone, as the
// attach/detach controller does.
func attachTo(zone string) step {
	return func(ctx context.Context, r *run) {
		volumes, err := r.ListPVs(ctx)
		if err != nil {
			r.reportViolation(err)
		}
		for i := range volumes {
			r.createAttachment(ctx, volumes[i].Name, zone)
		}
	}
}

// createAttachment creates a VolumeAttachment, which users want from now on.
func (r *run) createAttachment(ctx context.Context, volume, zone string) {
	name := world.AttachmentName(volume, r.node(zone))
	r.mu.Lock()
	r.wantedAttachments[name] = zone
	r.mu.Unlock()
	_, err := r.Client.StorageV1().VolumeAttachments().Create(ctx, &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: storagev1.VolumeAttachmentSpec{
			Attacher: r.Name, NodeName: r.node(zone), Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To(volume)},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		r.reportViolation(err)
	}
	r.trace.note("volume %s is wanted in zone %s", volume, zone)
}

// detach deletes all VolumeAttachments, which nobody wants any more, without waiting
// until they are gone.
func detach(ctx context.Context, r *run) {
	r.mu.Lock()
	clear(r.wantedAttachments)
	r.mu.Unlock()
	attachments, err := r.listAttachments(ctx)
	if err != nil {
		r.reportViolation(err)
	}
	for i := range attachments {
		name := attachments[i].Name
		err := r.Client.StorageV1().VolumeAttachments().Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			r.reportViolation(err)
		}
		r.trace.note("attachment %s was deleted", name)
	}
}

// deleteFirstNodeAndDetach deletes the first node and detaches everything.
func deleteFirstNodeAndDetach(ctx context.Context, r *run) {
	deleteFirstNode(ctx, r)
	detach(ctx, r)
}

// listAttachments returns the VolumeAttachments of the environment's driver.
func (s *environment) listAttachments(ctx context.Context) ([]storagev1.VolumeAttachment, error) {
	if !s.scenario.driver.AnyNode {
		return nil, nil
	}
	list, err := s.Client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(a storagev1.VolumeAttachment) bool { return a.Spec.Attacher != s.Name }), nil
}

// compareAttachments reports attachments that are not as wanted, in the cluster and at
// the driver.
func (s *clusterState) compareAttachments(want map[string]string, found *result) {
	wrong := func(format string, args ...any) { found.stuck = append(found.stuck, fmt.Sprintf(format, args...)) }
	left := map[string]bool{}
	for i := range s.attachments {
		a := &s.attachments[i]
		left[a.Name] = true
		zone, wanted := want[a.Name]
		switch {
		case !wanted:
			wrong("VolumeAttachment %s exists with the finalizers %v, and nobody wants it", a.Name, a.Finalizers)
		case !a.Status.Attached || a.Status.AttachError != nil || a.Status.DetachError != nil:
			wrong("VolumeAttachment %s is not attached: %+v", a.Name, a.Status)
		case !slices.Contains(s.publishedNodes(a), zone):
			wrong("VolumeAttachment %s is attached, but the driver has not published the volume", a.Name)
		}
	}
	for name := range want {
		if !left[name] {
			wrong("VolumeAttachment %s is gone although it is wanted", name)
		}
	}
	for _, at := range s.driverVolumes {
		for _, zone := range at.Nodes {
			if !s.hasAttachment(at, zone) {
				found.leaks = append(found.leaks, fmt.Sprintf("%s is published on %s without a VolumeAttachment", at.ID, zone))
			}
		}
	}
}

// publishedNodes returns the nodes on which the driver has published the volume of an
// attachment.
func (s *clusterState) publishedNodes(a *storagev1.VolumeAttachment) []string {
	for _, at := range s.driverVolumes {
		if s.isOfVolume(a, at) {
			return at.Nodes
		}
	}
	return nil
}

// hasAttachment reports whether a VolumeAttachment exists for a published volume.
func (s *clusterState) hasAttachment(at csitest.Volume, zone string) bool {
	return slices.ContainsFunc(s.attachments, func(a storagev1.VolumeAttachment) bool {
		return a.Name == world.AttachmentName(*a.Spec.Source.PersistentVolumeName, s.node(zone)) && s.isOfVolume(&a, at)
	})
}

// isOfVolume reports whether a VolumeAttachment is for a volume at the driver.
func (s *clusterState) isOfVolume(a *storagev1.VolumeAttachment, at csitest.Volume) bool {
	for i := range s.volumes {
		if s.volumes[i].Name == *a.Spec.Source.PersistentVolumeName {
			return s.volumes[i].Spec.CSI.VolumeHandle == s.handle(at)
		}
	}
	return false
}
