package restore

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// Options configure the restores of a node.
type Options struct {
	// Node is the name of the node.
	Node string
	// OperatorNamespace is that of the checkpoint-operator. Pods of all namespaces may name
	// those of its Checkpoints whose target is in the pod's namespace.
	OperatorNamespace string
	// Dir is the directory of the tickets, see package ticket.
	Dir string
	// KubeletDir is the kubelet's directory, as the node sees it.
	KubeletDir string
	// HostPID is a process in the namespaces of the node; 0 if this process is in them.
	HostPID int
	// Memory keeps images in RAM; nil if nothing does.
	Memory Memory
	// Environment returns what the node has; nil if that is not known yet.
	Environment func() *v1alpha1.Environment
	// Handlers returns those of the CRI runtime; nil if its configuration is not understood.
	Handlers func(context.Context) *Handlers
	// Workers is how many pods are restored concurrently.
	Workers int
	// RetryStart and RetryMax are the shortest and the longest pause before a retry.
	RetryStart, RetryMax time.Duration
}

// Setup adds the controller to a manager, whose cache must have the pods of the node only.
func Setup(m ctrl.Manager, events *kube.Events, archives Archives, node Node, o *Options) error {
	if err := registerMetrics(); err != nil {
		return err
	}
	r := &Reconciler{
		client: m.GetClient(), apiReader: m.GetAPIReader(), events: events, options: o,
		archives: archives, node: node, fetches: semaphore.NewWeighted(maxFetches), backoff: newBackoff(o), now: time.Now,
	}
	if err := m.Add(manager.RunnableFunc(func(ctx context.Context) error { return r.removeUnowned(ctx) })); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(m).
		Named("restore").
		For(&corev1.Pod{}).
		WithEventFilter(filter).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: o.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](o.RetryStart, o.RetryMax),
		}).
		Complete(kube.DrainOnStop(r))
}

// filter leaves out pods that nobody wants to have restored. One whose request was withdrawn
// is of concern once more.
var filter = predicate.Funcs{
	CreateFunc: func(e event.CreateEvent) bool { return concerns(e.Object) },
	UpdateFunc: func(e event.UpdateEvent) bool { return concerns(e.ObjectOld) || concerns(e.ObjectNew) },
	DeleteFunc: func(e event.DeleteEvent) bool { return concerns(e.Object) },
}

// concerns reports whether a pod asks for a restore, or did.
func concerns(o client.Object) bool {
	annotations := o.GetAnnotations()
	return annotations[v1alpha1.AnnotationRestoreFrom] != "" || annotations[v1alpha1.AnnotationObservedRestoreFrom] != ""
}
