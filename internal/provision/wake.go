package provision

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	rawsource "sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/source"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// A claim that waits for something is not left to pauses that grow: what it
// waits for wakes it up. The kinds of this file are watched for that alone.

// watchDependencies has the controller woken by what claims wait for, beyond their class.
func (r *Reconciler) watchDependencies(m ctrl.Manager, b *builder.Builder) error {
	b.Watches(&corev1.PersistentVolumeClaim{}, r.enqueueWaiting(claimsBySource, claimKey), builder.WithPredicates(onUpdate(becameBound)))
	if r.readsNodes() {
		b.Watches(&corev1.Node{}, r.enqueueWaiting(claimsByNode, nodeKeys), builder.WithPredicates(r.nodes.InvalidateBefore(onUpdate(r.isRelabelled))))
		b.Watches(&storagev1.CSINode{}, r.enqueueWaiting(claimsByNode, nodeKeys), builder.WithPredicates(r.nodes.InvalidateBefore(r.registrationEvents())))
	}
	return r.watchOptionalKinds(m, b)
}

// watchOptionalKinds are about kinds that not every cluster has and not every role
// may watch. Of their objects only names are looked at.
func (r *Reconciler) watchOptionalKinds(m ctrl.Manager, b *builder.Builder) error {
	api, err := metadata.NewForConfigAndClient(metadata.ConfigFor(m.GetConfig()), m.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("making a client for metadata: %w", err)
	}
	var kinds []*optionalWatch
	if r.options.CrossNamespace {
		kinds = append(kinds, &optionalWatch{
			resource: schema.GroupVersionResource{Group: source.GrantList.Group, Version: source.GrantList.Version, Resource: "referencegrants"},
			handler:  r.enqueueWaiting(claimsByGrantor, func(o client.Object) []string { return []string{o.GetNamespace()} }),
		})
	}
	if r.driver.Info().Has(csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT) {
		kinds = append(kinds, &optionalWatch{
			resource: schema.GroupVersionResource{Group: source.GroupSnapshot, Version: "v1", Resource: "volumesnapshots"},
			handler:  r.enqueueWaiting(claimsBySource, snapshotKey),
		})
	}
	if r.options.Attributes && r.driver.Info().Has(csipb.ControllerServiceCapability_RPC_MODIFY_VOLUME) {
		kinds = append(kinds, &optionalWatch{
			resource: storagev1.SchemeGroupVersion.WithResource("volumeattributesclasses"),
			handler:  r.enqueueWaiting(claimsByAttributes, func(o client.Object) []string { return []string{o.GetName()} }),
		})
	}
	for _, k := range kinds {
		k.api, k.log, k.changed = api, r.log, make(chan event.GenericEvent)
		if err := m.Add(k); err != nil {
			return fmt.Errorf("adding the watch of %s: %w", k.resource.Resource, err)
		}
		b.WatchesRawSource(rawsource.Channel(k.changed, k.handler))
	}
	return nil
}

// enqueueWaiting leads from an object to the claims that wait for it, by an index of
// theirs and the keys of the object in it.
func (r *Reconciler) enqueueWaiting(index string, keys func(client.Object) []string) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		var all []reconcile.Request
		for _, key := range keys(o) {
			all = append(all, r.requestsFor(ctx, index, key)...)
		}
		return all
	})
}

// requestsFor are the claims that an index has under a key.
func (r *Reconciler) requestsFor(ctx context.Context, index, key string) []reconcile.Request {
	claims := &corev1.PersistentVolumeClaimList{}
	if err := r.client.List(ctx, claims, client.MatchingFields{index: key}); err != nil {
		r.log.Error(err, "The claims that wait could not be listed", "index", index, "key", key)
		return nil
	}
	var all []reconcile.Request
	for i := range claims.Items {
		all = append(all, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&claims.Items[i])})
	}
	return all
}

// anyNode is the key of the claims for which no node has been selected: they
// may wait for the driver's first node. No node has a name like it.
const anyNode = "*"

func claimKey(o client.Object) []string {
	return []string{source.Source{Kind: source.KindClaim, Namespace: o.GetNamespace(), Name: o.GetName()}.Key()}
}

func snapshotKey(o client.Object) []string {
	return []string{source.Source{Kind: source.KindSnapshot, Namespace: o.GetNamespace(), Name: o.GetName()}.Key()}
}

func nodeKeys(o client.Object) []string { return []string{o.GetName(), anyNode} }

// waitsForSource, waitsForGrant, waitsForAttributes and waitsForNode are the
// keys of a pending claim in the indexes.
func waitsForSource(claim *corev1.PersistentVolumeClaim) []string {
	if from, ours := source.Of(claim); from != nil && ours {
		return []string{from.Key()}
	}
	return nil
}

func waitsForGrant(claim *corev1.PersistentVolumeClaim) []string {
	if from, ours := source.Of(claim); from != nil && ours && from.Namespace != claim.Namespace {
		return []string{from.Namespace}
	}
	return nil
}

func waitsForAttributes(claim *corev1.PersistentVolumeClaim) []string {
	if name := ptr.Deref(claim.Spec.VolumeAttributesClassName, ""); name != "" {
		return []string{name}
	}
	return nil
}

func waitsForNode(claim *corev1.PersistentVolumeClaim) []string {
	if name := kube.SelectedNode(claim); name != "" {
		return []string{name}
	}
	return []string{anyNode}
}

// onUpdate lets through the updates that are news. What is there already when
// the watch begins need not wake claims: they begin then too.
func onUpdate(changed func(before, after client.Object) bool) predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool { return changed(e.ObjectOld, e.ObjectNew) },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

func becameBound(before, after client.Object) bool {
	was, ok1 := before.(*corev1.PersistentVolumeClaim)
	is, ok2 := after.(*corev1.PersistentVolumeClaim)
	return ok1 && ok2 && was.Status.Phase != corev1.ClaimBound && is.Status.Phase == corev1.ClaimBound
}

// isRelabelled tells whether a node has moved in the driver's topology.
func (r *Reconciler) isRelabelled(before, after client.Object) bool {
	csiNode := &storagev1.CSINode{}
	if err := r.client.Get(context.Background(), client.ObjectKeyFromObject(after), csiNode); err != nil {
		return false // The driver is not on it yet; its registration is news.
	}
	return slices.ContainsFunc(r.topologyKeys(csiNode), func(key string) bool {
		return before.GetLabels()[key] != after.GetLabels()[key]
	})
}

func (r *Reconciler) topologyKeys(o client.Object) []string {
	csiNode, ok := o.(*storagev1.CSINode)
	if !ok {
		return nil
	}
	keys, _ := topology.Keys(csiNode, r.options.Driver)
	return keys
}

// registrationEvents lets through a CSINode in which the driver is new, or has other
// topology keys than before.
func (r *Reconciler) registrationEvents() predicate.Funcs {
	keys := r.topologyKeys
	p := onUpdate(func(before, after client.Object) bool { return !slices.Equal(keys(before), keys(after)) })
	p.CreateFunc = func(e event.CreateEvent) bool { return len(keys(e.Object)) > 0 }
	return p
}

// retryInterval is how often a kind is looked for that could not be watched.
const retryInterval = time.Minute

// An optionalWatch is a kind that is watched where it is installed and may be read.
// Elsewhere claims that wait for it are left to the pauses that grow.
type optionalWatch struct {
	resource schema.GroupVersionResource
	handler  handler.EventHandler
	api      metadata.Interface
	changed  chan event.GenericEvent
	log      logr.Logger
	reported atomic.Bool
}

// Start watches until ctx ends. It runs on the leader only.
func (k *optionalWatch) Start(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := k.watch(ctx); err != nil {
			return fmt.Errorf("watching %s: %w", k.resource.Resource, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryInterval):
		}
	}
	return nil
}

// watch returns when the kind cannot be watched, or ctx ends.
func (k *optionalWatch) watch(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	informer := metadatainformer.NewFilteredMetadataInformer(k.api, k.resource, metav1.NamespaceAll, 0, toolscache.Indexers{}, nil).Informer()
	if err := informer.SetTransform(stripToName); err != nil {
		return err
	}
	err := informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, reflector *toolscache.Reflector, err error) {
		if !k.isUnavailable(err) {
			toolscache.DefaultWatchErrorHandler(ctx, reflector, err)
			return
		}
		stop()
	})
	if err != nil {
		return err
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.wake(ctx, o) },
		UpdateFunc: func(_, o any) { k.wake(ctx, o) },
	})
	if err != nil {
		return err
	}
	informer.RunWithContext(ctx)
	return nil
}

func (k *optionalWatch) wake(ctx context.Context, o any) {
	k.reported.Store(false) // Whatever is missing later is news again.
	object, ok := o.(client.Object)
	if !ok {
		return
	}
	select {
	case k.changed <- event.GenericEvent{Object: object}:
	case <-ctx.Done():
	}
}

// isUnavailable tells whether an error means that the kind cannot be watched, and
// says so in the log, once.
func (k *optionalWatch) isUnavailable(err error) bool {
	if !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return false
	}
	if !k.reported.Swap(true) {
		k.log.Info("Claims that wait for this kind are only tried again after pauses: it is not installed or may not be listed and watched",
			"kind", k.resource.GroupResource(), "reason", err.Error())
	}
	return true
}

// stripToName keeps of an object what it takes to find the claims that wait for
// it, and to see that it has changed.
func stripToName(o any) (any, error) {
	object, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return o, nil
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: object.Namespace, Name: object.Name, UID: object.UID, ResourceVersion: object.ResourceVersion,
	}}, nil
}
