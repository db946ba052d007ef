package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// Options configure the controller.
type Options struct {
	// Program returns what the pods run.
	Program func(context.Context) (*Program, error)
	// Workers is how many Checkpoints are reconciled concurrently.
	Workers int
	// RetryStart and RetryMax are the shortest and the longest pause before a retry, and
	// between two looks at a claim and a pod.
	RetryStart, RetryMax time.Duration
}

// Setup adds the controller to a manager. Without o.Program the pods run the image of the
// operator's own pod.
func Setup(m ctrl.Manager, events *kube.Events, self client.ObjectKey, o *Options) error {
	options := *o
	if options.Program == nil {
		options.Program = func(ctx context.Context) (*Program, error) { return ownProgram(ctx, m.GetAPIReader(), self) }
	}
	r := &Reconciler{client: m.GetClient(), apiReader: m.GetAPIReader(), events: events, options: &options, now: time.Now}
	if err := setupRestores(m, r); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(m).
		Named("checkpoint-volume").
		For(&v1alpha1.Checkpoint{}).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: o.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](o.RetryStart, o.RetryMax),
		}).
		Complete(kube.DrainOnStop(r))
}

// HoldCommand is the subcommand of the program that waits until it is stopped.
const HoldCommand = "hold"

// ownProgram returns the image of a pod, and this program in it.
func ownProgram(ctx context.Context, from client.Reader, self client.ObjectKey) (*Program, error) {
	const remedy = "set --volume-image to an image that waits until it is stopped"
	if self.Name == "" {
		return nil, errors.New("the operator does not know the name of its pod, whose image would mount the volume: set POD_NAME by the downward API (metadata.name), or " + remedy)
	}
	pod := &corev1.Pod{}
	if err := from.Get(ctx, self, pod); err != nil {
		return nil, fmt.Errorf("reading the operator's own pod %s, whose image would mount the volume: %w; or %s", self, err, remedy)
	}
	path, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding out the path of the operator's program: %w; or %s", err, remedy)
	}
	first := &pod.Spec.Containers[0]
	return &Program{Image: first.Image, PullPolicy: first.ImagePullPolicy, Command: []string{path, HoldCommand}}, nil
}
