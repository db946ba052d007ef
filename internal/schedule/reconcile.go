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

// longest is after how long a schedule is looked at again at the latest, so that
// a clock that is set forward is noticed.
const longest = 10 * time.Minute

// Reasons of events.
const (
	reasonRunStarted = "SnapshotRunStarted"
	reasonRunMissed  = "SnapshotRunMissed"
)

// Reconciler does for a schedule what is due.
type Reconciler struct {
	client  client.Client
	live    client.Reader // past the cache
	events  *kube.Events
	options *Options
	now     func() time.Time
	server  func() (time.Time, bool) // the API server's time, if it is known
	beyond  beyond
	looks   rests // after those that led to nothing but a report
	reports rests
}

// Reconcile visits a schedule, unless somebody has just looked in vain.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	key := request.NamespacedName
	if left := r.looks.left(key, r.now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	s, now, err := r.look(ctx, key)
	if errors.Is(err, errInvalid) {
		return r.over(r.tell(ctx, s, invalid(s, err, now)))
	}
	if err != nil || s == nil {
		return reconcile.Result{}, err
	}
	if todo := decide(s, now); todo.acts() {
		return r.act(ctx, s, now)
	}
	r.looks.begin(key, now, r.now())
	if left := r.reports.left(key, r.now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	if err := r.tell(ctx, s, settle(s, setbacks{}, now)); err != nil {
		return r.over(err)
	}
	r.reports.begin(key, now, r.now())
	return reconcile.Result{RequeueAfter: r.pause(decide(s, now), now)}, nil
}

// act begins the run of a schedule that is due, takes the snapshots whose turn it
// is, removes those that are too many, and tells how things are.
func (r *Reconciler) act(ctx context.Context, s *seen, now time.Time) (reconcile.Result, error) {
	s, err := r.record(ctx, s, now)
	if err != nil {
		return r.over(err)
	}
	todo := decide(s, now)
	refused, failed := r.create(ctx, s, &todo)
	stuck, removed := r.remove(ctx, s, todo.remove)
	untold := r.tell(ctx, s, settle(s, setbacks{refused, stuck}, now))
	if err := errors.Join(failed, removed, untold); err != nil {
		return r.over(err)
	}
	return reconcile.Result{RequeueAfter: r.pause(decide(s, now), now)}, nil
}

// pause is for how long a schedule is left alone after a visit if nothing happens.
// What is still to be done was refused, or the visit has ended before its turn.
func (r *Reconciler) pause(left step, begun time.Time) time.Duration {
	switch ended := r.now(); {
	case left.free > 0 && len(left.create) > 0 && left.create[0].refused == nil && ended.Sub(begun) >= spell:
		left.again = ended
	case left.acts():
		left.again = sooner(left.again, begun.Add(retryPause))
	}
	return pause(left.again, r.now())
}

// look observes a schedule: in the cache, and at the API server if that leads to
// more than a report. Its answer tells its time, of which what is known may be late.
func (r *Reconciler) look(ctx context.Context, key client.ObjectKey) (*seen, time.Time, error) {
	now := r.now()
	s, err := r.observe(ctx, key, false)
	if err != nil {
		return s, now, err
	}
	if s == nil {
		r.beyond.forget(key)
		return nil, now, nil
	}
	if todo := decide(s, now); todo.acts() || todo.answers || todo.withheld {
		s, err = r.lookUp(ctx, s, &todo)
	}
	return s, now, err
}

// lookUp observes again, before something is done, what the cache has led to. A run
// that begins, or a trigger that is answered, is about the claims that there are;
// else it is enough if the cache has all that is known to be there.
func (r *Reconciler) lookUp(ctx context.Context, cached *seen, todo *step) (*seen, error) {
	if todo.record == nil && !todo.answers && r.beyond.nothing(cached) {
		if same, err := r.again(ctx, cached); err != nil || same {
			return cached, err
		}
	}
	live, err := r.observe(ctx, client.ObjectKeyFromObject(cached.schedule), true)
	if err == nil && live != nil {
		r.beyond.saw(live, cached)
	}
	return live, err
}

// again reads the schedule alone at the API server, and tells whether its spec is
// still what the cache says: it may have been suspended.
func (r *Reconciler) again(ctx context.Context, s *seen) (bool, error) {
	is := &v1alpha1.SnapshotSchedule{}
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(s.schedule), is); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	s.server = r.clocks().server
	same := is.UID == s.schedule.UID && is.Generation == s.schedule.Generation && is.DeletionTimestamp == nil
	if same {
		s.schedule = is
	}
	return same, nil
}

// record puts on record what has to be before anything is done about it.
func (r *Reconciler) record(ctx context.Context, s *seen, now time.Time) (*seen, error) {
	record := decide(s, now).record
	if record == nil {
		return s, nil
	}
	before := s.schedule.Status
	if err := r.write(ctx, s.schedule, record); err != nil {
		return nil, err
	}
	r.announce(s.schedule, &before, record)
	return s, nil
}

// announce tells about a run that begins, and about one that does not.
func (r *Reconciler) announce(s *v1alpha1.SnapshotSchedule, before, is *v1alpha1.SnapshotScheduleStatus) {
	if missed := is.LastMissedTime; missed != nil && !missed.Equal(before.LastMissedTime) {
		runs.WithLabelValues("missed").Inc()
		r.events.Warning(s, reasonRunMissed, fmt.Sprintf(
			"the run of %s is passed over: it would be later than spec.startingDeadline allows", stamp(missed.Time)))
	}
	run := is.Run
	if run == nil || before.Run != nil && sameRun(run, before.Run) {
		return
	}
	runs.WithLabelValues("begun").Inc()
	message := "the run of " + stamp(run.Time.Time) + " has begun"
	if run.Trigger != "" {
		message += fmt.Sprintf(", as spec.trigger %q asked", run.Trigger)
	}
	r.events.Normal(s, reasonRunStarted, message)
}

// tell writes the status, and an event if readiness is lost or lost in another
// way.
func (r *Reconciler) tell(ctx context.Context, s *seen, status *v1alpha1.SnapshotScheduleStatus) error {
	before := meta.FindStatusCondition(s.schedule.Status.Conditions, v1alpha1.Ready)
	is := meta.FindStatusCondition(status.Conditions, v1alpha1.Ready)
	differed := meta.FindStatusCondition(s.schedule.Status.Conditions, v1alpha1.ClocksDiffer)
	if err := r.write(ctx, s.schedule, status); err != nil {
		return err
	}
	if differ := meta.FindStatusCondition(status.Conditions, v1alpha1.ClocksDiffer); differ != nil && differed == nil {
		r.events.Warning(s.schedule, differ.Reason, differ.Message)
	}
	if is.Status == metav1.ConditionFalse && is.Reason != v1alpha1.ClocksDiffer && (before == nil || before.Message != is.Message) {
		r.events.Warning(s.schedule, is.Reason, is.Message)
	}
	return nil
}

// over ends a visit that did not go as it should. A schedule that has changed
// meanwhile is no failure: it is looked at again.
func (r *Reconciler) over(err error) (reconcile.Result, error) {
	if errors.Is(err, errStale) {
		return reconcile.Result{RequeueAfter: r.options.RetryStart}, nil
	}
	return reconcile.Result{}, err
}

// pause is for how long a schedule is left alone if nothing happens.
func pause(again, now time.Time) time.Duration {
	if again.IsZero() {
		return longest
	}
	return min(max(again.Sub(now), time.Millisecond), longest)
}
