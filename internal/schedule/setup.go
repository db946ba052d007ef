package schedule

import (
	"cmp"
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// crdCheckInterval is how often to check for missing CRDs.
const crdCheckInterval = time.Minute

// SetupSnapshots adds the controller of SnapshotSchedules to a manager whose cache has
// SnapshotCacheOptions. The controller starts once SnapshotSchedules and VolumeSnapshots are installed
// and may be listed: the program is also deployed with manifests that do not include schedules.
func SetupSnapshots(_ context.Context, m ctrl.Manager, events *kube.Events, o *Options) error {
	return setup(m, events, snapshotKind{}, o)
}

// SetupCheckpoints adds the controller of CheckpointSchedules to a manager whose cache has
// CheckpointCacheOptions. It starts as that of SnapshotSchedules does.
func SetupCheckpoints(_ context.Context, m ctrl.Manager, events *kube.Events, o *Options) error {
	return setup(m, events, checkpointKind{}, o)
}

func setup(m ctrl.Manager, events *kube.Events, k kind, o *Options) error {
	r := &Reconciler{
		kind: k, client: m.GetClient(), apiReader: m.GetAPIReader(), events: events, metrics: newMetrics(k.getTerms()),
		options: o, now: time.Now, serverTime: o.Clock.Now,
	}
	if err := m.Add(&starter{Reconciler: r, manager: m}); err != nil {
		return fmt.Errorf("adding the starter of the controller of %s: %w", k.getTerms().resource, err)
	}
	return nil
}

// A starter adds the controller once the CRDs are served.
type starter struct {
	*Reconciler
	manager ctrl.Manager
}

// Start waits for the CRDs and adds the controller. It runs on the leader only.
func (s *starter) Start(ctx context.Context) error {
	log, logged := s.manager.GetLogger(), ""
	for {
		err := s.checkServed(ctx)
		if err == nil {
			return s.addController(ctx)
		}
		if err.Error() != logged {
			logged = err.Error()
			log.Info("Waiting until schedules can be served", "resource", s.kind.getTerms().resource, "every", cmp.Or(s.options.CRDCheckInterval, crdCheckInterval), "reason", logged)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(cmp.Or(s.options.CRDCheckInterval, crdCheckInterval)):
		}
	}
}

// checkServed returns an error while the CRDs are not installed or their objects may not be
// listed.
func (s *starter) checkServed(ctx context.Context) error {
	options := []client.ListOption{client.Limit(1)}
	if len(s.options.Namespaces) > 0 {
		options = append(options, client.InNamespace(s.options.Namespaces[0]))
	}
	terms := s.kind.getTerms()
	for name, list := range map[string]client.ObjectList{
		terms.resource: s.kind.newScheduleList(), terms.childResource: s.kind.newChildList(),
	} {
		err := s.apiReader.List(ctx, list, options...)
		if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
			return fmt.Errorf("CustomResourceDefinition %s is not installed, the command crds prints it: %w", name, err)
		}
		if err != nil {
			return fmt.Errorf("listing %s: %w", name, err)
		}
	}
	return nil
}

// inServedNamespace passes objects in the served namespaces.
func (s *starter) inServedNamespace() predicate.Funcs {
	return predicate.NewPredicateFuncs(func(o client.Object) bool { return s.options.isServed(o.GetNamespace()) })
}

// addController adds the controller to the running manager.
func (s *starter) addController(ctx context.Context) error {
	m, terms := s.manager, s.kind.getTerms()
	if err := m.GetFieldIndexer().IndexField(ctx, s.kind.newChild(), bySchedule, scheduleUID); err != nil {
		return fmt.Errorf("indexing %s by their schedule: %w", terms.children, err)
	}
	if err := m.Add(&collector{Reconciler: s.Reconciler, cache: m.GetCache(), to: metrics.Registry}); err != nil {
		return fmt.Errorf("adding metrics of %s: %w", terms.resource, err)
	}
	b := ctrl.NewControllerManagedBy(m).
		Named(terms.controller).
		For(s.kind.newSchedule(), builder.WithPredicates(scheduleChanged(), s.inServedNamespace())).
		Watches(s.kind.newChild(), handler.EnqueueRequestsFromMapFunc(requestForChild), builder.WithPredicates(childChanged(s.kind), kube.SkipInitialList())).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: s.options.Workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](s.options.RetryStart, s.options.RetryMax),
		})
	s.kind.watchTargets(b, s.Reconciler)
	return b.Complete(kube.DrainOnStop(s.Reconciler))
}
