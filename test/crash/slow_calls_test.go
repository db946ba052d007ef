package crash

import (
	"context"
	"fmt"
	"slices"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// A slowCall is one that the driver works on when its caller has given up. As with
// a queue of an array, whatever else is to change waits for it then. If it is
// overtaken, the caller's next try comes first.
type slowCall struct {
	method         csi.Method
	subject        string
	retriedFirst   bool
	retry          any           // the request that overtakes it; nil if none has come
	retrySucceeded bool          // the repetition, with what was asked for
	started        chan struct{} // closed when its turn has come
	done           chan struct{} // closed when the work is done
}

// start lets the driver do the work. The caller holds the stage's lock.
func (l *slowCall) start() {
	select {
	case <-l.started:
	default:
		close(l.started)
	}
}

// delayCall holds up a call that is slow or late until its caller has given up, or
// has got an answer to its next try. Then it may be the scenario's turn.
func (s *environment) delayCall(ctx context.Context, method csi.Method, req any, hit *injectedFault) {
	l := &slowCall{method: method, subject: callSubject(req), retriedFirst: hit.late, started: make(chan struct{}), done: make(chan struct{})}
	s.mu.Lock()
	s.slowCalls[req] = l
	s.mu.Unlock()
	s.noteUnknownOutcome(req, true)
	<-ctx.Done()
	s.disruptIfDue(hit)
	if !l.retriedFirst {
		return
	}
	for {
		select {
		case <-l.started:
			time.Sleep(quietPeriod)
			return
		case <-time.After(pollInterval):
			if s.trace.isSilent(leakAfter) {
				return // Nobody asks again.
			}
		}
	}
}

// waitForSlowCalls has a call wait for late ones if they must have an end before it: all but
// questions, calls of the same kind about something else, and the repetition that
// overtakes.
func (s *environment) waitForSlowCalls(method csi.Method, req any) {
	if !slices.Contains(changingMethods, method) {
		return
	}
	var before []*slowCall
	s.mu.Lock()
	for _, l := range s.slowCalls {
		same := l.method == method && l.subject == callSubject(req)
		switch {
		case l.method == method && !same:
		case same && l.retriedFirst && l.retry == nil:
			l.retry = req
		default:
			l.start()
			before = append(before, l)
		}
	}
	s.mu.Unlock()
	for _, l := range before {
		<-l.done
	}
}

// retryAnswered lets the late call begin that a call was the repetition of.
func (s *environment) retryAnswered(req any, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.slowCalls {
		if l.retry == req {
			l.retrySucceeded = err == nil
			l.start()
		}
	}
}

// finishCall ends a call that may have been late. It tells whether its caller had
// got what it asked for in the meantime.
func (s *environment) finishCall(req any) (obsolete bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.slowCalls[req]
	if !ok {
		return false
	}
	delete(s.slowCalls, req)
	close(l.done)
	return l.retrySucceeded
}

// callSubject is what a call is about that changes something: what is made goes by
// its name.
func callSubject(req any) string {
	switch r := req.(type) {
	case *csipb.CreateVolumeRequest:
		return r.GetName()
	case *csipb.CreateSnapshotRequest:
		return r.GetName()
	case *csipb.CreateVolumeGroupSnapshotRequest:
		return r.GetName()
	case *csipb.ControllerPublishVolumeRequest:
		return fmt.Sprintf("%s on %s", r.GetVolumeId(), r.GetNodeId())
	case *csipb.ControllerUnpublishVolumeRequest:
		return fmt.Sprintf("%s on %s", r.GetVolumeId(), r.GetNodeId())
	case interface{ GetVolumeId() string }:
		return r.GetVolumeId()
	case interface{ GetSnapshotId() string }:
		return r.GetSnapshotId()
	case interface{ GetGroupSnapshotId() string }:
		return r.GetGroupSnapshotId()
	default:
		return ""
	}
}

// shortCallTimeout is what a process gives a call to the driver in runs with a call
// that takes longer; patience with calls is what it gives them in others.
const shortCallTimeout, longCallTimeout = time.Second, time.Minute

// setCallTimeouts has the processes give calls little time, or much.
func (s *environment) setCallTimeouts(hasty bool) {
	if s.shortTimeouts == hasty {
		return
	}
	s.shortTimeouts = hasty
	for i, c := range s.controllers {
		c.kill()
		c.callTimeout = s.callTimeoutOf(i)
		c.start()
	}
}

// callTimeoutOf is what the i-th process of a role gives a call to the driver. All
// come through one socket: how much time a call has tells whose it is.
func (s *environment) callTimeoutOf(i int) time.Duration {
	each := longCallTimeout
	if s.shortTimeouts || s.scenario.shortTimeouts {
		each = shortCallTimeout
	}
	return time.Duration(i+1) * each
}
