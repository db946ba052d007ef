package provision

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
)

// retryInterval is how often a watch is tried again that is not possible.
const retryInterval = time.Minute

// An optionalWatch watches a kind if it is installed and the role permits it. Otherwise
// the claims that wait for such an object are retried with the usual backoff.
type optionalWatch struct {
	resource schema.GroupVersionResource
	handler  handler.EventHandler
	api      metadata.Interface
	changed  chan event.GenericEvent
	log      logr.Logger
	reported atomic.Bool
}

// Start watches until ctx ends. It runs on the leader only.
func (w *optionalWatch) Start(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := w.watch(ctx); err != nil {
			return fmt.Errorf("watching %s: %w", w.resource.Resource, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryInterval):
		}
	}
	return nil
}

// watch returns when the kind cannot be watched, or ctx ends.
func (w *optionalWatch) watch(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	informer := metadatainformer.NewFilteredMetadataInformer(w.api, w.resource, metav1.NamespaceAll, 0, toolscache.Indexers{}, nil).Informer()
	if err := informer.SetTransform(stripToName); err != nil {
		return err
	}
	err := informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, reflector *toolscache.Reflector, err error) {
		if !w.isUnavailable(err) {
			toolscache.DefaultWatchErrorHandler(ctx, reflector, err)
			return
		}
		stop()
	})
	if err != nil {
		return err
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { w.wake(ctx, o) },
		UpdateFunc: func(_, o any) { w.wake(ctx, o) },
	})
	if err != nil {
		return err
	}
	informer.RunWithContext(ctx)
	return nil
}

func (w *optionalWatch) wake(ctx context.Context, o any) {
	w.reported.Store(false) // A later failure is reported again.
	object, ok := o.(client.Object)
	if !ok {
		return
	}
	select {
	case w.changed <- event.GenericEvent{Object: object}:
	case <-ctx.Done():
	}
}

// isUnavailable reports whether an error means that the kind cannot be watched, and logs
// that once.
func (w *optionalWatch) isUnavailable(err error) bool {
	if !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return false
	}
	if !w.reported.Swap(true) {
		w.log.Info("The kind is not installed, or the role does not permit to list and watch it: claims that wait for it are retried with backoff only",
			"kind", w.resource.GroupResource(), "reason", err.Error())
	}
	return true
}

// stripToName removes what is not needed to find the claims that wait for an object and
// to notice that the object has changed.
func stripToName(o any) (any, error) {
	object, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return o, nil
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: object.Namespace, Name: object.Name, UID: object.UID, ResourceVersion: object.ResourceVersion,
	}}, nil
}
