package volume

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// observe reads what decide has to know. Only the Checkpoint is read from the cache.
func (r *Reconciler) observe(ctx context.Context, c *v1alpha1.Checkpoint) (*state, error) {
	s := &state{checkpoint: c, now: r.now()}
	if v := c.Status.Volume; v != nil {
		if err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKey{Namespace: c.Namespace, Name: v.ClaimName}, &s.claim); err != nil {
			return nil, err
		}
		if err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKey{Namespace: c.Namespace, Name: v.PodName}, &s.pod); err != nil {
			return nil, err
		}
	}
	if goalOf(c) != mount {
		return s, nil
	}
	if awaitsFirstMount(c) {
		if err := kube.GetIfExists(ctx, r.apiReader, targetKey(c), &s.target); err != nil {
			return nil, err
		}
	}
	return s, r.observeTrouble(ctx, s)
}

// observeTrouble reads why a pod has been pending for long: what the provisioner says of
// the claim, or else what the kubelet and the attacher say of the pod.
func (r *Reconciler) observeTrouble(ctx context.Context, s *state) (err error) {
	if s.claim == nil || s.pod == nil || s.pod.Status.Phase != corev1.PodPending || s.now.Sub(s.pod.CreationTimestamp.Time) < patience {
		return nil
	}
	if s.claim.Status.Phase == corev1.ClaimPending {
		s.trouble, err = r.newestWarning(ctx, s.claim)
	} else {
		s.trouble, err = r.newestWarning(ctx, s.pod)
	}
	return err
}

// newestWarning returns the message of the newest warning about an object. That a claim has
// no class is no warning, but has a reason of its own.
func (r *Reconciler) newestWarning(ctx context.Context, about client.Object) (string, error) {
	var all corev1.EventList
	err := r.apiReader.List(ctx, &all, client.InNamespace(about.GetNamespace()), client.MatchingFields{"involvedObject.uid": string(about.GetUID())})
	if err != nil {
		return "", fmt.Errorf("listing the events about %s/%s: %w", about.GetNamespace(), about.GetName(), err)
	}
	message, newest := "", time.Time{}
	for i := range all.Items {
		e := &all.Items[i]
		if at := timeOf(e); (e.Type == corev1.EventTypeWarning || e.Reason == "FailedBinding") && at.After(newest) {
			message, newest = e.Message, at
		}
	}
	return message, nil
}

// timeOf returns when an event happened last. Which field has it depends on the API with
// which it was written.
func timeOf(e *corev1.Event) time.Time {
	if e.Series != nil {
		return e.Series.LastObservedTime.Time
	}
	if !e.LastTimestamp.IsZero() {
		return e.LastTimestamp.Time
	}
	return e.EventTime.Time
}
