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

// Event is what an event tells.
type Event struct{ Type, Reason, Message string }

// EmitOnce tells what many processes are about to tell of the same object. The
// event's name follows from what it says, so there is one, by whoever is first.
// Events about objects outside of namespaces are in the namespace default.
func (e *Events) EmitOnce(ctx context.Context, c client.Client, about client.Object, news Event) error {
	news.Message = Truncate(news.Message, messageLimit)
	if e.repeats(about, said{news.Reason, news.Message}) {
		return nil
	}
	ref, err := reference.GetReference(c.Scheme(), about)
	if err != nil {
		return fmt.Errorf("naming what an event is about: %w", err)
	}
	now := metav1.Now()
	sum := sha256.Sum256([]byte(news.Type + news.Reason + news.Message))
	err = c.Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: cmp.Or(about.GetNamespace(), metav1.NamespaceDefault), Name: fmt.Sprintf("%s.%x", about.GetUID(), sum[:8])},
		InvolvedObject: *ref, Type: news.Type, Reason: news.Reason, Message: news.Message,
		Source: corev1.EventSource{Component: e.component}, ReportingController: e.component,
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("telling that %s: %w", news.Message, err)
	}
	e.last.Add(eventKey(about), said{news.Reason, news.Message}, repeatAfter)
	return nil
}
