package resize

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	// slowCall is how long a call may take without being told about: its end is
	// told then.
	slowCall = time.Second
	// unknownGrace is for how long an answer that leaves things open is no failure:
	// most drivers are done at the next try.
	unknownGrace = 30 * time.Second
	// secretRetry is how soon a secret is looked for again. Secrets wake nobody
	// up, because watching all of a cluster is a right that nobody should need.
	secretRetry = 15 * time.Second
	// messageLimit is how much of what a driver says goes into a condition, in bytes.
	messageLimit = 1024
)

// A operation is an expansion or a modification, as its owner is told about it.
type operation struct {
	what                          string // as in "resizing volume v to 2Gi"
	progressReason, failureReason string // reasons of events
	// condition is the condition that tells since when it has been going on.
	condition corev1.PersistentVolumeClaimConditionType
	// resumed is whether an earlier call may have done it: a refusal says nothing
	// about that one.
	resumed bool
	// isDoubtful tells whether a call that was refused may have done some of it.
	isDoubtful func(rejection) bool
	// recordRejection puts a refusal on record.
	recordRejection func(*corev1.PersistentVolumeClaim, rejection, time.Time)
	// rejected is set when that is done.
	rejected *bool
	// isCurrent tells whether it is what is on record.
	isCurrent func(*state) bool
}

// reportIfSlow tells about work that is not over quickly. The function that it
// returns is to be called when it is over.
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

// handleFailure acts on a call that failed, by what that means for the next.
func (r *Reconciler) handleFailure(ctx context.Context, s *state, op operation, failure error) (time.Duration, error) {
	failure = fmt.Errorf("%s: %w", op.what, failure)
	outcome := csi.OutcomeOf(failure)
	if !outcome.Final() {
		r.reportUnknown(s, op, failure)
		return 0, failure
	}
	f := rejection{infeasible: outcome == csi.Infeasible, code: codeOf(failure).String(), message: kube.Truncate(failure.Error(), messageLimit)}
	switch {
	case op.resumed:
		f.outcome = outcomeUnknown
	case op.isDoubtful(f):
		f.outcome = outcomeDoubtful
	}
	err := r.recordResult(ctx, s, op.isCurrent, func(c *corev1.PersistentVolumeClaim) { op.recordRejection(c, f, r.now()) })
	if errors.Is(err, errConflict) {
		return 0, err // The refusal is of something that nobody wants any more.
	}
	r.events.Warning(s.claim, op.failureReason, failure.Error())
	*op.rejected = err == nil
	if err == nil && f.infeasible {
		return r.options.RetryMax, nil
	}
	return 0, errors.Join(failure, err)
}

// reportUnknown tells about a call that may still be running or may have done its work.
// That is no failure, unless it goes on for long, the driver says that something
// is exhausted, or it breaks the rules.
func (r *Reconciler) reportUnknown(s *state, op operation, failure error) {
	var bad *csi.InvalidResponse
	since := condition(s.claim, op.condition)
	long := since == nil || r.now().Sub(since.LastTransitionTime.Time) > unknownGrace
	if long || errors.As(failure, &bad) || codeOf(failure) == codes.ResourceExhausted {
		r.events.Warning(s.claim, op.failureReason, failure.Error()+"; asking again")
		return
	}
	r.events.Normal(s.claim, op.progressReason, failure.Error()+"; asking again")
}

// reportNotReady tells why the driver could not be asked.
func (r *Reconciler) reportNotReady(s *state, op operation, problem error) (time.Duration, error) {
	problem = fmt.Errorf("%s: %w", op.what, problem)
	if apierrors.IsNotFound(problem) {
		r.events.Warning(s.claim, op.failureReason, problem.Error()+"; create it, or it stays as it is")
		return min(secretRetry, r.options.RetryMax), nil
	}
	r.events.Warning(s.claim, op.failureReason, problem.Error())
	return 0, problem
}

// reportAPIError tells about a request to the API server that will not succeed by
// itself. Others are no news for the claim's owner: nothing has failed but for
// the moment.
func (r *Reconciler) reportAPIError(s *state, op operation, problem error) error {
	if apierrors.IsForbidden(problem) || apierrors.IsInvalid(problem) {
		r.events.Warning(s.claim, op.failureReason, fmt.Sprintf("%s: %v", op.what, problem))
	}
	return problem
}

// reportInUse tells who keeps a volume from being expanded. The end of the pod wakes us
// up; what is missed by that is found after the longest pause.
func (r *Reconciler) reportInUse(s *state, pod string) time.Duration {
	r.events.Warning(s.claim, kube.ReasonVolumeResizeFailed, fmt.Sprintf(
		"volume %s is in use by pod %s and driver %s expands it only while it is not: it is expanded when the pod has ended",
		s.volume.Name, pod, r.options.Driver))
	return r.options.RetryMax
}

// codeOf is what the driver answered.
func codeOf(err error) codes.Code {
	var called *csi.Error
	if errors.As(err, &called) {
		return called.Code
	}
	return codes.Unknown
}
