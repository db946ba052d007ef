package provision

import (
	"context"
	"fmt"
	"slices"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
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

// watchDependencies watches what claims wait for, beyond their class: an event starts the
// reconcile of the claims that wait for the object, before their backoff ends.
func (r *Reconciler) watchDependencies(m ctrl.Manager, b *builder.Builder) error {
	b.Watches(&corev1.PersistentVolumeClaim{}, r.enqueueWaiting(claimsBySource, claimKey), builder.WithPredicates(onUpdate(becameBound)))
	if r.readsNodes() {
		b.Watches(&corev1.Node{}, r.enqueueWaiting(claimsByNode, nodeKeys), builder.WithPredicates(r.nodes.InvalidateBefore(onUpdate(r.isRelabelled))))
		b.Watches(&storagev1.CSINode{}, r.enqueueWaiting(claimsByNode, nodeKeys), builder.WithPredicates(r.nodes.InvalidateBefore(r.registrationEvents())))
	}
	return r.watchOptionalKinds(m, b)
}

// watchOptionalKinds watches the kinds that not every cluster has and not every role may
// watch. It reads only the names of their objects.
func (r *Reconciler) watchOptionalKinds(m ctrl.Manager, b *builder.Builder) error {
	api, err := metadata.NewForConfigAndClient(metadata.ConfigFor(m.GetConfig()), m.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("making a client for metadata: %w", err)
	}
	var kinds []*optionalWatch
	if r.options.CrossNamespace {
		kinds = append(kinds, &optionalWatch{
			resource: schema.GroupVersionResource{Group: kube.ReferenceGrantList.Group, Version: kube.ReferenceGrantList.Version, Resource: "referencegrants"},
			handler:  r.enqueueWaiting(claimsByGrantor, func(o client.Object) []string { return []string{o.GetNamespace()} }),
		})
	}
	if r.driver.Info().Has(csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT) {
		kinds = append(kinds, &optionalWatch{
			resource: schema.GroupVersionResource{Group: source.GroupSnapshot, Version: "v1", Resource: "volumesnapshots"},
			handler:  r.enqueueWaitingForSnapshot(),
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

// enqueueWaiting returns a handler that enqueues the claims that wait for an object. The
// claims are those that an index has under one of the object's keys.
func (r *Reconciler) enqueueWaiting(index string, keys func(client.Object) []string) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		var all []reconcile.Request
		for _, key := range keys(o) {
			all = append(all, r.requestsFor(ctx, index, key)...)
		}
		return all
	})
}

// requestsFor returns requests for the claims that an index has under a key.
func (r *Reconciler) requestsFor(ctx context.Context, index, key string) []reconcile.Request {
	claims := &corev1.PersistentVolumeClaimList{}
	if err := r.client.List(ctx, claims, client.MatchingFields{index: key}); err != nil {
		r.log.Error(err, "Failed to list the claims that wait for an object", "index", index, "key", key)
		return nil
	}
	var all []reconcile.Request
	for i := range claims.Items {
		all = append(all, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&claims.Items[i])})
	}
	return all
}

// anyNode is the index key of the claims without a selected node: they may wait for the
// driver's first node. It is not a valid name of a node.
const anyNode = "*"

func claimKey(o client.Object) []string {
	return []string{source.Source{Kind: source.KindClaim, Namespace: o.GetNamespace(), Name: o.GetName()}.Key()}
}

func snapshotKey(o client.Object) []string {
	return []string{source.Source{Kind: source.KindSnapshot, Namespace: o.GetNamespace(), Name: o.GetName()}.Key()}
}

func nodeKeys(o client.Object) []string { return []string{o.GetName(), anyNode} }

// waitsForSource, waitsForGrant, waitsForAttributes and waitsForNode return the index keys
// of a claim that waits for a volume.
func waitsForSource(claim *corev1.PersistentVolumeClaim) []string {
	if from, supported := source.Of(claim); from != nil && supported {
		return []string{from.Key()}
	}
	return nil
}

func waitsForGrant(claim *corev1.PersistentVolumeClaim) []string {
	if from, supported := source.Of(claim); from != nil && supported && from.Namespace != claim.Namespace {
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

// onUpdate passes the updates for which changed is true. The objects that exist when the
// watch starts enqueue no claims, because all claims are reconciled then.
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

// isRelabelled reports whether a node's labels for the driver's topology have changed.
func (r *Reconciler) isRelabelled(before, after client.Object) bool {
	csiNode := &storagev1.CSINode{}
	if err := r.client.Get(context.Background(), client.ObjectKeyFromObject(after), csiNode); err != nil {
		return false // The driver is not registered yet. Its registration is an event too.
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

// registrationEvents passes the events of a CSINode whose topology keys of the driver have
// changed, as when the driver is registered.
func (r *Reconciler) registrationEvents() predicate.Funcs {
	keys := r.topologyKeys
	p := onUpdate(func(before, after client.Object) bool { return !slices.Equal(keys(before), keys(after)) })
	p.CreateFunc = func(e event.CreateEvent) bool { return len(keys(e.Object)) > 0 }
	return p
}
