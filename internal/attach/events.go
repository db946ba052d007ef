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

// reportFailure writes an error to the status, which the attach/detach
// controller of Kubernetes reads, and emits it as an event for users. It
// returns the error so that the work is retried. A conflict is not reported.
func (r *Reconciler) reportFailure(ctx context.Context, s state, err error) error {
	if err == nil || kube.IsConflict(err) {
		return err
	}
	now, reported, reason := time.Now(), err, kube.ReasonFailedAttach
	if s.attachment.DeletionTimestamp != nil {
		reason = kube.ReasonFailedDetach
	}
	if r.options.needsTimeoutError(s.attachment, now) {
		timeouts.Inc()
	}
	if r.options.isOverdue(s.attachment, now) {
		reported = r.options.timeoutError(err)
	}
	r.events.Warning(s.eventTarget(), reason, fmt.Sprintf("%s on node %s: %s", volumeName(s.attachment), s.attachment.Spec.NodeName, kube.Message(reported)))
	if writeErr := r.setError(ctx, s.attachment, r.options.volumeError(reported, now)); writeErr != nil && !kube.IsConflict(writeErr) {
		err = errors.Join(err, writeErr)
	}
	return err
}

// eventTarget returns the object whose events users read: the claim, else the
// volume, else the VolumeAttachment.
func (s *state) eventTarget() client.Object {
	switch {
	case s.volume == nil:
		return s.attachment
	case s.volume.Spec.ClaimRef == nil:
		return s.volume
	}
	claim := s.volume.Spec.ClaimRef
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}}
}
