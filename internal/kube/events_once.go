package kube

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/reference"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Event is the content of an event.
type Event struct{ Type, Reason, Message string }

// HasEvent reports whether an event with a reason exists about an object. It asks the API
// server.
func HasEvent(ctx context.Context, apiReader client.Reader, about client.Object, reason string) (bool, error) {
	events := &corev1.EventList{}
	selector := client.MatchingFields{"involvedObject.uid": string(about.GetUID()), "reason": reason}
	if err := apiReader.List(ctx, events, client.InNamespace(about.GetNamespace()), selector, client.Limit(1)); err != nil {
		return false, fmt.Errorf("listing the events of %s: %w", about.GetName(), err)
	}
	return len(events.Items) > 0, nil
}

// EmitOnce sends an event that many processes may send about the same object. The
// event's name is derived from its content, so only the first process creates it.
// Events about cluster-scoped objects are in the namespace default.
func (e *Events) EmitOnce(ctx context.Context, c client.Client, about client.Object, event Event) error {
	event.Message = Truncate(event.Message, MessageLimit)
	if e.isRepetition(about, content{event.Reason, event.Message}) {
		return nil
	}
	ref, err := reference.GetReference(c.Scheme(), about)
	if err != nil {
		return fmt.Errorf("referring to the object of an event: %w", err)
	}
	now := metav1.Now()
	sum := sha256.Sum256([]byte(event.Type + event.Reason + event.Message))
	err = c.Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: cmp.Or(about.GetNamespace(), metav1.NamespaceDefault), Name: fmt.Sprintf("%s.%x", about.GetUID(), sum[:8])},
		InvolvedObject: *ref, Type: event.Type, Reason: event.Reason, Message: event.Message,
		Source: corev1.EventSource{Component: e.component}, ReportingController: e.component,
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating the event %q: %w", event.Message, err)
	}
	e.last.Add(eventKey(about), content{event.Reason, event.Message}, repeatAfter)
	return nil
}
