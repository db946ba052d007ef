package attach

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// failed tells what went wrong: in the status, where the attach/detach
// controller of Kubernetes looks, and as an event where users look. It returns
// the error, for another try. That the object has changed is not told.
func (r *Reconciler) failed(ctx context.Context, s seen, err error) error {
	if err == nil || isSuperseded(err) {
		return err
	}
	now, told, reason := time.Now(), err, kube.ReasonFailedAttach
	if s.attachment.DeletionTimestamp != nil {
		reason = kube.ReasonFailedDetach
	}
	if r.options.unmarked(s.attachment, now) {
		timeouts.Inc()
	}
	if r.options.overdue(s.attachment, now) {
		told = r.options.late(err)
	}
	r.events.Warning(s.concerned(), reason, fmt.Sprintf("%s on node %s: %s", volumeName(s.attachment), s.attachment.Spec.NodeName, told))
	if writing := r.setError(ctx, s.attachment, r.options.volumeError(told, now)); writing != nil && !isSuperseded(writing) {
		err = errors.Join(err, writing)
	}
	return err
}

// concerned is where users look for what happens to a volume: its claim, else
// the volume, else the VolumeAttachment.
func (s *seen) concerned() client.Object {
	switch {
	case s.volume == nil:
		return s.attachment
	case s.volume.Spec.ClaimRef == nil:
		return s.volume
	}
	claim := s.volume.Spec.ClaimRef
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}}
}
