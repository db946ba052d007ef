package resize

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	// slowCall is how long a call may take before an event says that it is in
	// progress. A faster call only has an event for its result.
	slowCall = time.Second
	// unknownGrace is how long an unknown outcome is not reported as a failure.
	// Most drivers are done at the next attempt.
	unknownGrace = 30 * time.Second
	// secretRetry is how soon a missing or invalid secret is read again. Secrets are not
	// watched, because that would require permission to read all secrets of the
	// cluster.
	secretRetry = 15 * time.Second
)

// An operation describes an expansion or a modification for events and
// conditions.
type operation struct {
	what                          string // such as "resizing volume v to 2Gi"
	progressReason, failureReason string // reasons of events
	// condition is the type of the condition that records when the operation
	// started.
	condition corev1.PersistentVolumeClaimConditionType
	// resumed is whether an earlier call may have done the work. A rejection
	// says nothing about that call.
	resumed bool
	// nodeOnly is whether only the node expands the volume. The driver's controller is not
	// called.
	nodeOnly bool
	// isDoubtful reports whether a rejected call may have done some of the
	// work.
	isDoubtful func(rejection) bool
	// recordRejection records a rejection in the claim.
	recordRejection func(*corev1.PersistentVolumeClaim, rejection, time.Time)
	// rejected is set when the rejection is recorded.
	rejected *bool
	// isCurrent reports whether the operation is the recorded one.
	isCurrent func(*state) bool
}

// reportIfSlow emits an event if an operation takes longer than slowCall. The
// caller calls the returned function when the operation has ended.
func (r *Reconciler) reportIfSlow(claim *corev1.PersistentVolumeClaim, op operation) (over func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	timer := time.NewTimer(slowCall)
	go func() {
		defer close(stopped)
		select {
		case <-timer.C:
			r.events.Normal(claim, op.progressReason, "CSI driver "+r.options.Driver+" is "+op.what)
		case <-stop:
			timer.Stop()
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

// handleFailure acts on a failed call. A final error is recorded; any other is
// retried.
func (r *Reconciler) handleFailure(ctx context.Context, s *state, op operation, failure error) (time.Duration, error) {
	failure = fmt.Errorf("%s: %w", op.what, failure)
	outcome := csi.OutcomeOf(failure)
	if !outcome.Final() {
		r.reportUnknown(s, op, failure)
		return 0, failure
	}
	f := rejection{infeasible: outcome == csi.Infeasible, code: csi.CodeOf(failure).String(), message: kube.Truncate(failure.Error(), kube.MessageLimit)}
	switch {
	case op.resumed:
		f.outcome = outcomeUnknown
	case op.isDoubtful(f):
		f.outcome = outcomeDoubtful
	}
	err := r.recordResult(ctx, s, op.isCurrent, func(c *corev1.PersistentVolumeClaim) { op.recordRejection(c, f, r.now()) })
	if errors.Is(err, errConflict) {
		return 0, err // The claim has changed: the rejection is not about the recorded operation.
	}
	r.events.Warning(s.claim, op.failureReason, failure.Error())
	r.events.WarnIfDenied(s.claim, op.failureReason, err)
	*op.rejected = err == nil
	if err == nil && f.infeasible {
		return r.options.RetryMax, nil
	}
	return 0, errors.Join(failure, err)
}

// reportUnknown emits an event about a call with an unknown outcome. It is a
// warning only if it takes long, if the driver returns ResourceExhausted, or if
// the response violates the CSI specification.
func (r *Reconciler) reportUnknown(s *state, op operation, failure error) {
	var bad *csi.InvalidResponse
	since := condition(s.claim, op.condition)
	long := since == nil || r.now().Sub(since.LastTransitionTime.Time) > unknownGrace
	if long || errors.As(failure, &bad) || csi.CodeOf(failure) == codes.ResourceExhausted {
		r.events.Warning(s.claim, op.failureReason, failure.Error()+"; retrying")
		return
	}
	r.events.Normal(s.claim, op.progressReason, failure.Error()+"; retrying")
}

// reportNotReady reports why the driver could not be called.
func (r *Reconciler) reportNotReady(s *state, op operation, problem error) (time.Duration, error) {
	problem = fmt.Errorf("%s: %w", op.what, problem)
	if kube.IsSecretProblem(problem) {
		r.events.Warning(s.claim, op.failureReason, problem.Error()+"; until then the volume stays unchanged")
		return min(secretRetry, r.options.RetryMax), nil
	}
	r.events.Warning(s.claim, op.failureReason, kube.Message(problem))
	return 0, problem
}

// reportAPIError emits an event about an API request that needs a user to
// succeed. Other API errors are transient and do not concern the claim's owner.
func (r *Reconciler) reportAPIError(s *state, op operation, problem error) error {
	if problem == nil {
		return nil
	}
	problem = fmt.Errorf("%s: %w", op.what, problem)
	r.events.WarnIfDenied(s.claim, op.failureReason, problem)
	return problem
}

// reportInUse reports which pod prevents an expansion. The end of the pod
// enqueues the claim. If that event is missed, the returned delay does.
func (r *Reconciler) reportInUse(s *state, pod string) time.Duration {
	r.events.Warning(s.claim, kube.ReasonVolumeResizeFailed, fmt.Sprintf(
		"volume %s is in use by pod %s, and driver %s expands only unused volumes: it is expanded when the pod has ended",
		s.volume.Name, pod, r.options.Driver))
	return r.options.RetryMax
}
