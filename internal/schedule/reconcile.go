package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// maxRequeueInterval is after how long a schedule is reconciled at the latest, so that a clock
// that is set forward is noticed.
const maxRequeueInterval = 10 * time.Minute

// Reconciler reconciles the schedules of a kind.
type Reconciler struct {
	kind            kind
	client          client.Client
	apiReader       client.Reader // uncached
	events          *kube.Events
	metrics         *kindMetrics
	options         *Options
	now             func() time.Time
	serverTime      func() (time.Time, bool) // the API server's time, if it is known
	expectations    expectations
	observeDebounce debouncer // after reconciles that only updated the status
	statusDebounce  debouncer
}

// Reconcile reconciles a schedule, unless it is debounced.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	key := request.NamespacedName
	if left := r.observeDebounce.remaining(key, r.now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	s, now, err := r.observeConfirmed(ctx, key)
	if errors.Is(err, errInvalidSpec) {
		return r.finish(r.report(ctx, s, invalidStatus(s, err, now)))
	}
	if err != nil || s == nil {
		return reconcile.Result{}, err
	}
	if next := decide(s, now); next.hasWork() {
		return r.act(ctx, s, now)
	}
	r.observeDebounce.start(key, now, r.now())
	if left := r.statusDebounce.remaining(key, r.now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	if err := r.report(ctx, s, newStatus(s, rejections{}, now)); err != nil {
		return r.finish(err)
	}
	r.statusDebounce.start(key, now, r.now())
	return reconcile.Result{RequeueAfter: r.requeueAfter(decide(s, now), now)}, nil
}

// act starts the run that is due, creates children, deletes expired ones, and updates the
// status.
func (r *Reconciler) act(ctx context.Context, s *state, now time.Time) (reconcile.Result, error) {
	s, err := r.writeRecord(ctx, s, now)
	if err != nil {
		return r.finish(err)
	}
	next := decide(s, now)
	rejected, createErr := r.createChildren(ctx, s, &next)
	stuck, deleteErr := r.deleteChildren(ctx, s, next.remove)
	reportErr := r.report(ctx, s, newStatus(s, rejections{rejected, stuck}, now))
	if err := errors.Join(createErr, deleteErr, reportErr); err != nil {
		return r.finish(err)
	}
	return reconcile.Result{RequeueAfter: r.requeueAfter(decide(s, now), now)}, nil
}

// requeueAfter returns when to reconcile again if nothing changes. Work that is left was
// rejected, or the reconcile ended before it because of maxReconcileTime.
func (r *Reconciler) requeueAfter(next step, begun time.Time) time.Duration {
	switch ended := r.now(); {
	case next.free > 0 && len(next.create) > 0 && next.create[0].retryTime == nil && ended.Sub(begun) >= maxReconcileTime:
		next.requeueAt = ended
	case next.hasWork():
		next.requeueAt = minNonZero(next.requeueAt, begun.Add(retryInterval))
	}
	return requeueInterval(next.requeueAt, r.now())
}

// observeConfirmed observes a schedule: from the cache and, if there is more to do than to
// update the status, from the API server. The response also updates the API server's time,
// which may be stale.
func (r *Reconciler) observeConfirmed(ctx context.Context, key client.ObjectKey) (*state, time.Time, error) {
	now := r.now()
	s, err := r.observe(ctx, key, false)
	if err != nil {
		return s, now, err
	}
	if s == nil {
		r.expectations.delete(key)
		return nil, now, nil
	}
	if next := decide(s, now); next.hasWork() || next.triggerSatisfied || next.withheld {
		s, err = r.confirm(ctx, s, &next)
	}
	return s, now, err
}

// confirm observes the state again before acting on what the cache shows. To start a run or to
// complete a trigger, it reads everything from the API server, because all existing targets
// matter. Otherwise the cache is enough if it shows all expected children.
func (r *Reconciler) confirm(ctx context.Context, cached *state, next *step) (*state, error) {
	if next.record == nil && !next.triggerSatisfied && r.expectations.satisfied(cached) {
		if unchanged, err := r.confirmSchedule(ctx, cached); err != nil || unchanged {
			return cached, err
		}
	}
	live, err := r.observe(ctx, cached.schedule.key(), true)
	if err == nil && live != nil {
		r.expectations.setFromAPIServer(live, cached)
	}
	return live, err
}

// confirmSchedule reads only the schedule from the API server, and reports whether its spec is
// as in the cache: it may have been suspended.
func (r *Reconciler) confirmSchedule(ctx context.Context, s *state) (bool, error) {
	current := r.kind.newSchedule()
	if err := r.apiReader.Get(ctx, s.schedule.key(), current); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	s.serverTime = r.readClocks().server
	unchanged := current.GetUID() == s.schedule.UID && current.GetGeneration() == s.schedule.Generation && current.GetDeletionTimestamp() == nil
	if unchanged {
		s.schedule = r.kind.fromObject(current)
	}
	return unchanged, nil
}

// writeRecord writes the record that must precede all other actions.
func (r *Reconciler) writeRecord(ctx context.Context, s *state, now time.Time) (*state, error) {
	record := decide(s, now).record
	if record == nil {
		return s, nil
	}
	before := s.schedule.Status
	if err := r.patchStatus(ctx, s.schedule, record); err != nil {
		return nil, err
	}
	r.emitRunEvents(s.schedule, &before, record)
	return s, nil
}

// emitRunEvents emits events for a run that started or was skipped.
func (r *Reconciler) emitRunEvents(s *schedule, before, after *scheduleStatus) {
	if missed := after.LastMissedTime; missed != nil && !missed.Equal(before.LastMissedTime) {
		r.metrics.runs.WithLabelValues("missed").Inc()
		r.events.Warning(s.object, s.terms.runMissed, fmt.Sprintf(
			"the run of %s was skipped: it would have started later than spec.startingDeadline allows", formatTime(missed.Time)))
	}
	run := after.Run
	if run == nil || before.Run != nil && isSameRun(run, before.Run) {
		return
	}
	r.metrics.runs.WithLabelValues("begun").Inc()
	message := "the run of " + formatTime(run.Time.Time) + " has started"
	if run.Trigger != "" {
		message += fmt.Sprintf(", requested by spec.trigger %q", run.Trigger)
	}
	r.events.Normal(s.object, s.terms.runStarted, message)
}

// report writes the status. It emits an event if the schedule is no longer ready, or not ready
// for another reason.
func (r *Reconciler) report(ctx context.Context, s *state, status *scheduleStatus) error {
	readyBefore := meta.FindStatusCondition(s.schedule.Status.Conditions, v1alpha1.Ready)
	ready := meta.FindStatusCondition(status.Conditions, v1alpha1.Ready)
	clocksBefore := meta.FindStatusCondition(s.schedule.Status.Conditions, v1alpha1.ClocksDiffer)
	if err := r.patchStatus(ctx, s.schedule, status); err != nil {
		return err
	}
	if clocks := meta.FindStatusCondition(status.Conditions, v1alpha1.ClocksDiffer); clocks != nil && clocksBefore == nil {
		r.events.Warning(s.schedule.object, clocks.Reason, clocks.Message)
	}
	if ready.Status == metav1.ConditionFalse && ready.Reason != v1alpha1.ClocksDiffer && (readyBefore == nil || readyBefore.Message != ready.Message) {
		r.events.Warning(s.schedule.object, ready.Reason, ready.Message)
	}
	return nil
}

// finish ends a reconcile with an error. A conflict is not a failure: the schedule is
// reconciled again.
func (r *Reconciler) finish(err error) (reconcile.Result, error) {
	if errors.Is(err, errConflict) {
		return reconcile.Result{RequeueAfter: r.options.RetryStart}, nil
	}
	return reconcile.Result{}, err
}

// requeueInterval bounds the time until the next reconcile.
func requeueInterval(again, now time.Time) time.Duration {
	if again.IsZero() {
		return maxRequeueInterval
	}
	return min(max(again.Sub(now), time.Millisecond), maxRequeueInterval)
}
