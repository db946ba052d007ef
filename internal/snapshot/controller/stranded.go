package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// With --enable-distributed-snapshotting each node has its own csi-snapshotter. A content
// is stranded if it is being deleted and its node is gone: only that node's csi-snapshotter
// could ask the driver to delete the snapshot. If there is nothing to delete at the
// driver, the content's finalizer is removed here. Otherwise the user is told what to do.

// nodeGoneTimeout is how long the csi-snapshotter may take to delete the content of a
// node that is gone. One csi-snapshotter may work for all nodes, and then the label does
// not matter.
const nodeGoneTimeout = 30 * time.Second

// nodeGoneProblem tells the user what to do. With policy Retain no csi-snapshotter is
// needed.
func (r rules) nodeGoneProblem(content *Content) *snapshot.Problem {
	name := content.Object.GetName()
	return snapshot.Problemf(r.Reasons.DeletionPending,
		"%s %s must be deleted by the csi-snapshotter of node %s, and there is no such node: if it is gone for good, run kubectl patch %s %s --type=merge -p '%s', which leaves the snapshot at the driver",
		r.Content, name, content.Node, strings.ToLower(r.Content), name, `{"spec":{"deletionPolicy":"Retain"}}`)
}

// reportNodeGone reports the problem as an event and in the status, after
// nodeGoneTimeout.
func (r *Reconciler) reportNodeGone(ctx context.Context, s *Observed, problem *snapshot.Problem) (time.Duration, error) {
	if left := nodeGoneTimeout - r.now().Sub(s.Content.Object.GetDeletionTimestamp().Time); left > 0 {
		return left, nil
	}
	return 0, r.reportDeletionError(ctx, s, problem)
}

// isNodeGone reports whether the node of a content does not exist.
func (r *Reconciler) isNodeGone(ctx context.Context, from client.Reader, content *Content) (bool, error) {
	if !r.options.Distributed || content.Node == "" {
		return false, nil
	}
	var node *corev1.Node
	if err := kube.GetIfExists(ctx, from, client.ObjectKey{Name: content.Node}, &node); err != nil || node != nil {
		return false, err
	}
	if len(content.Node) < validation.LabelValueMaxLength {
		return true, nil
	}
	nodes := &corev1.NodeList{} // The label may have a longer name in its shortened form.
	if err := from.List(ctx, nodes); err != nil {
		return false, fmt.Errorf("listing nodes: %w", err)
	}
	return !slices.ContainsFunc(nodes.Items, func(n corev1.Node) bool { return snapshot.NodeLabel(n.Name) == content.Node }), nil
}

// strandedReconciler removes the finalizer of stranded contents that need no driver.
type strandedReconciler struct{ *Reconciler }

// SetUpStranded adds the controller of stranded contents, with
// --enable-distributed-snapshotting.
func (r *Reconciler) SetUpStranded(m ctrl.Manager) error {
	if !r.options.Distributed {
		return nil
	}
	leaving := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetDeletionTimestamp() != nil })
	return ctrl.NewControllerManagedBy(m).
		Named("stranded-"+r.Name).
		For(r.kind.EmptyContent(), builder.WithPredicates(leaving, IsNotDeleted())).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(r.deletingContentsOn(contentRequest)), builder.WithPredicates(isDeleted())).
		WithOptions(r.options.controllerOptions()).
		Complete(kube.DrainOnStop(strandedReconciler{r}))
}

func contentRequest(c *Content) reconcile.Request { return RequestFor("", c.Object.GetName()) }

// Reconcile removes the finalizer of a content if nothing else is left to do. The write
// fails if the content has changed: its csi-snapshotter may have begun with it, or it may
// have another policy.
func (r strandedReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s := &Observed{Snapshot: &Snapshot{ContentName: request.Name}}
	if err := r.readContent(ctx, r.client, s); err != nil || s.Content == nil || !r.canRemoveFinalizer(s) || !r.options.IsSelected(s.Content.Ref.Namespace) {
		return reconcile.Result{}, err
	}
	for _, from := range []client.Reader{r.client, r.apiReader} {
		if gone, err := r.isNodeGone(ctx, from, s.Content); err != nil || !gone {
			return reconcile.Result{}, err
		}
	}
	o := s.Content.Object
	left := slices.DeleteFunc(slices.Clone(o.GetFinalizers()), func(f string) bool { return f == r.Keys.Finalizer })
	err := kube.WrapWriteError(kube.IgnoreGone(kube.MergePatch(ctx, r.client, o, map[string]any{"metadata": map[string]any{
		"resourceVersion": o.GetResourceVersion(), "finalizers": left,
	}})), fmt.Sprintf("removing the finalizer from %s %s", r.Content, o.GetName()))
	r.events.WarnIfDenied(r.snapshotOf(s.Content), r.Reasons.DeletionPending, err)
	return r.requeueOnConflict(err)
}

// snapshotOf is the snapshot of a content, for events.
func (r rules) snapshotOf(c *Content) client.Object {
	o := r.kind.EmptySnapshot()
	o.SetNamespace(c.Ref.Namespace)
	o.SetName(c.Ref.Name)
	o.SetUID(c.Ref.UID)
	return o
}

// canRemoveFinalizer reports whether a csi-snapshotter would remove the finalizer of a
// content without asking the driver. Package sidecar has the same rule.
func (r rules) canRemoveFinalizer(s *Observed) bool {
	c := s.Content
	neverBound := c.PreProvisioned && c.Ref.UID == ""
	return s.contentIsDeleting() && slices.Contains(c.Object.GetFinalizers(), r.Keys.Finalizer) && !c.MayExistAtDriver &&
		(neverBound || r.Keys.DeletionAllowed(c.Object))
}

// deletingContentsOn maps a node to its contents that are being deleted, or to their
// snapshots.
func (r *Reconciler) deletingContentsOn(to func(*Content) reconcile.Request) handler.MapFunc {
	return func(ctx context.Context, node client.Object) (requests []reconcile.Request) {
		all := r.kind.EmptyContentList()
		if err := r.client.List(ctx, all, client.UnsafeDisableDeepCopy); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Could not list the contents of a node that is gone", "node", node.GetName())
			return nil
		}
		label := snapshot.NodeLabel(node.GetName())
		_ = meta.EachListItem(all, func(o runtime.Object) error { // The function does not fail.
			content, ok := o.(client.Object)
			if ok && content.GetDeletionTimestamp() != nil && content.GetLabels()[snapshot.ManagedBy] == label {
				requests = append(requests, to(r.kind.ReadContent(content)))
			}
			return nil
		})
		return requests
	}
}
