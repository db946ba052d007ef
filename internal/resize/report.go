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
	// quick is how long a call may take without being told about: its end is
	// told then.
	quick = time.Second
	// patience is for how long an answer that leaves things open is no failure:
	// most drivers are done at the next try.
	patience = 30 * time.Second
	// secretPause is how soon a secret is looked for again. Secrets wake nobody
	// up, because watching all of a cluster is a right that nobody should need.
	secretPause = 15 * time.Second
	// messageLimit is how much of what a driver says goes into a condition, in bytes.
	messageLimit = 1024
)

// A work is an expansion or a modification, as its owner is told about it.
type work struct {
	what          string // as in "resizing volume v to 2Gi"
	going, failed string // reasons of events
	// since is the condition that tells since when it has been going on.
	since corev1.PersistentVolumeClaimConditionType
	// resumed is whether an earlier call may have done it: a refusal says nothing
	// about that one.
	resumed bool
	// doubtful tells whether a call that was refused may have done some of it.
	doubtful func(refusal) bool
	// refuse puts a refusal on record.
	refuse func(*corev1.PersistentVolumeClaim, refusal, time.Time)
	// refused is set when that is done.
	refused *bool
	// current tells whether it is what is on record.
	current func(*seen) bool
}

// meanwhile tells about work that is not over quickly. The function that it
// returns is to be called when it is over.
func (r *Reconciler) meanwhile(claim *corev1.PersistentVolumeClaim, w work) (over func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	timer := time.NewTimer(quick)
	go func() {
		defer close(stopped)
		select {
		case <-timer.C:
			r.events.Normal(claim, w.going, "CSI driver "+r.options.Driver+" is "+w.what)
		case <-stop:
			timer.Stop()
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

// failed acts on a call that failed, by what that means for the next.
func (r *Reconciler) failed(ctx context.Context, s *seen, w work, failure error) (time.Duration, error) {
	failure = fmt.Errorf("%s: %w", w.what, failure)
	verdict := csi.OutcomeOf(failure)
	if !verdict.Final() {
		r.open(s, w, failure)
		return 0, failure
	}
	f := refusal{infeasible: verdict == csi.Infeasible, code: codeOf(failure).String(), message: kube.Truncate(failure.Error(), messageLimit)}
	switch {
	case w.resumed:
		f.outcome = outcomeUnknown
	case w.doubtful(f):
		f.outcome = outcomeDoubtful
	}
	err := r.settle(ctx, s, w.current, func(c *corev1.PersistentVolumeClaim) { w.refuse(c, f, r.now()) })
	if errors.Is(err, errStale) {
		return 0, err // The refusal is of something that nobody wants any more.
	}
	r.events.Warning(s.claim, w.failed, failure.Error())
	*w.refused = err == nil
	if err == nil && f.infeasible {
		return r.options.RetryMax, nil
	}
	return 0, errors.Join(failure, err)
}

// open tells about a call that may still be running or may have done its work.
// That is no failure, unless it goes on for long, the driver says that something
// is exhausted, or it breaks the rules.
func (r *Reconciler) open(s *seen, w work, failure error) {
	var bad *csi.InvalidResponse
	since := condition(s.claim, w.since)
	long := since == nil || r.now().Sub(since.LastTransitionTime.Time) > patience
	if long || errors.As(failure, &bad) || codeOf(failure) == codes.ResourceExhausted {
		r.events.Warning(s.claim, w.failed, failure.Error()+"; asking again")
		return
	}
	r.events.Normal(s.claim, w.going, failure.Error()+"; asking again")
}

// unready tells why the driver could not be asked.
func (r *Reconciler) unready(s *seen, w work, problem error) (time.Duration, error) {
	problem = fmt.Errorf("%s: %w", w.what, problem)
	if apierrors.IsNotFound(problem) {
		r.events.Warning(s.claim, w.failed, problem.Error()+"; create it, or it stays as it is")
		return min(secretPause, r.options.RetryMax), nil
	}
	r.events.Warning(s.claim, w.failed, problem.Error())
	return 0, problem
}

// hindered tells about a request to the API server that will not succeed by
// itself. Others are no news for the claim's owner: nothing has failed but for
// the moment.
func (r *Reconciler) hindered(s *seen, w work, problem error) error {
	if apierrors.IsForbidden(problem) || apierrors.IsInvalid(problem) {
		r.events.Warning(s.claim, w.failed, fmt.Sprintf("%s: %v", w.what, problem))
	}
	return problem
}

// busy tells who keeps a volume from being expanded. The end of the pod wakes us
// up; what is missed by that is found after the longest pause.
func (r *Reconciler) busy(s *seen, pod string) time.Duration {
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
