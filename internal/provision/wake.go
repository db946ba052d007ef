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

	"github.com/holdfast-io/holdfast/internal/topology"
)

// A claim that waits for something is not left to pauses that grow: what it
// waits for wakes it up. The kinds of this file are watched for that alone.

// wakers has the controller woken by what claims wait for, beyond their class.
func (r *Reconciler) wakers(m ctrl.Manager, b *builder.Builder) error {
	b.Watches(&corev1.PersistentVolumeClaim{}, r.waiting(claimsBySource, sourceOfClaim), builder.WithPredicates(onUpdate(becameBound)))
	if r.readsNodes() {
		b.Watches(&corev1.Node{}, r.waiting(claimsByNode, ofNode), builder.WithPredicates(r.atlas.before(onUpdate(r.relabelled))))
		b.Watches(&storagev1.CSINode{}, r.waiting(claimsByNode, ofNode), builder.WithPredicates(r.atlas.before(r.registered())))
	}
	return r.optionalWakers(m, b)
}

// optionalWakers are about kinds that not every cluster has and not every role
// may watch. Of their objects only names are looked at.
func (r *Reconciler) optionalWakers(m ctrl.Manager, b *builder.Builder) error {
	api, err := metadata.NewForConfigAndClient(metadata.ConfigFor(m.GetConfig()), m.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("making a client for metadata: %w", err)
	}
	var kinds []*optional
	if r.options.CrossNamespace {
		kinds = append(kinds, &optional{
			resource: schema.GroupVersionResource{Group: grants.Group, Version: grants.Version, Resource: "referencegrants"},
			wakes:    r.waiting(claimsByGrantor, func(o client.Object) []string { return []string{o.GetNamespace()} }),
		})
	}
	if r.driver.Info().Has(csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT) {
		kinds = append(kinds, &optional{
			resource: schema.GroupVersionResource{Group: groupSnapshot, Version: "v1", Resource: "volumesnapshots"},
			wakes:    r.waiting(claimsBySource, sourceOfSnapshot),
		})
	}
	if r.options.Attributes && r.driver.Info().Has(csipb.ControllerServiceCapability_RPC_MODIFY_VOLUME) {
		kinds = append(kinds, &optional{
			resource: storagev1.SchemeGroupVersion.WithResource("volumeattributesclasses"),
			wakes:    r.waiting(claimsByAttributes, func(o client.Object) []string { return []string{o.GetName()} }),
		})
	}
	for _, k := range kinds {
		k.api, k.log, k.changed = api, r.log, make(chan event.GenericEvent)
		if err := m.Add(k); err != nil {
			return fmt.Errorf("adding the watch of %s: %w", k.resource.Resource, err)
		}
		b.WatchesRawSource(rawsource.Channel(k.changed, k.wakes))
	}
	return nil
}

// waiting leads from an object to the claims that wait for it, by an index of
// theirs and the keys of the object in it.
func (r *Reconciler) waiting(index string, keys func(client.Object) []string) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		var all []reconcile.Request
		for _, key := range keys(o) {
			all = append(all, r.claimsWith(ctx, index, key)...)
		}
		return all
	})
}

// claimsWith are the claims that an index has under a key.
func (r *Reconciler) claimsWith(ctx context.Context, index, key string) []reconcile.Request {
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

func sourceOfClaim(o client.Object) []string {
	return []string{source{Kind: kindClaim, Namespace: o.GetNamespace(), Name: o.GetName()}.key()}
}

func sourceOfSnapshot(o client.Object) []string {
	return []string{source{Kind: kindSnapshot, Namespace: o.GetNamespace(), Name: o.GetName()}.key()}
}

func ofNode(o client.Object) []string { return []string{o.GetName(), anyNode} }

// waitsForSource, waitsForGrant, waitsForAttributes and waitsForNode are the
// keys of a pending claim in the indexes.
func waitsForSource(claim *corev1.PersistentVolumeClaim) []string {
	if from, ours := sourceOf(claim); from != nil && ours {
		return []string{from.key()}
	}
	return nil
}

func waitsForGrant(claim *corev1.PersistentVolumeClaim) []string {
	if from, ours := sourceOf(claim); from != nil && ours && from.Namespace != claim.Namespace {
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
	if name := selectedNode(claim); name != "" {
		return []string{name}
	}
	return []string{anyNode}
}

// onUpdate lets through the updates that are news. What is there already when
// the watch begins need not wake claims: they begin then too.
func onUpdate(news func(before, after client.Object) bool) predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool { return news(e.ObjectOld, e.ObjectNew) },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
}

func becameBound(before, after client.Object) bool {
	was, ok1 := before.(*corev1.PersistentVolumeClaim)
	is, ok2 := after.(*corev1.PersistentVolumeClaim)
	return ok1 && ok2 && was.Status.Phase != corev1.ClaimBound && is.Status.Phase == corev1.ClaimBound
}

// relabelled tells whether a node has moved in the driver's topology.
func (r *Reconciler) relabelled(before, after client.Object) bool {
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

// registered lets through a CSINode in which the driver is new, or has other
// topology keys than before.
func (r *Reconciler) registered() predicate.Funcs {
	keys := r.topologyKeys
	p := onUpdate(func(before, after client.Object) bool { return !slices.Equal(keys(before), keys(after)) })
	p.CreateFunc = func(e event.CreateEvent) bool { return len(keys(e.Object)) > 0 }
	return p
}

// lookAgain is how often a kind is looked for that could not be watched.
const lookAgain = time.Minute

// An optional is a kind that is watched where it is installed and may be read.
// Elsewhere claims that wait for it are left to the pauses that grow.
type optional struct {
	resource schema.GroupVersionResource
	wakes    handler.EventHandler
	api      metadata.Interface
	changed  chan event.GenericEvent
	log      logr.Logger
	told     atomic.Bool
}

// Start watches until ctx ends. It runs on the leader only.
func (k *optional) Start(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := k.watch(ctx); err != nil {
			return fmt.Errorf("watching %s: %w", k.resource.Resource, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookAgain):
		}
	}
	return nil
}

// watch returns when the kind cannot be watched, or ctx ends.
func (k *optional) watch(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	informer := metadatainformer.NewFilteredMetadataInformer(k.api, k.resource, metav1.NamespaceAll, 0, toolscache.Indexers{}, nil).Informer()
	if err := informer.SetTransform(nameOnly); err != nil {
		return err
	}
	err := informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, reflector *toolscache.Reflector, err error) {
		if !k.missing(err) {
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

func (k *optional) wake(ctx context.Context, o any) {
	k.told.Store(false) // Whatever is missing later is news again.
	object, ok := o.(client.Object)
	if !ok {
		return
	}
	select {
	case k.changed <- event.GenericEvent{Object: object}:
	case <-ctx.Done():
	}
}

// missing tells whether an error means that the kind cannot be watched, and
// says so in the log, once.
func (k *optional) missing(err error) bool {
	if !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return false
	}
	if !k.told.Swap(true) {
		k.log.Info("Claims that wait for this kind are only tried again after pauses: it is not installed or may not be listed and watched",
			"kind", k.resource.GroupResource(), "reason", err.Error())
	}
	return true
}

// nameOnly keeps of an object what it takes to find the claims that wait for
// it, and to see that it has changed.
func nameOnly(o any) (any, error) {
	object, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return o, nil
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: object.Namespace, Name: object.Name, UID: object.UID, ResourceVersion: object.ResourceVersion,
	}}, nil
}
