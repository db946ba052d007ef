package crash

import (
	"context"
	"fmt"
	"slices"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// A slowCall is one on which the driver works after the caller's deadline. Other
// changes wait for it, as in an array's queue. If retriedFirst is set, the driver
// serves the caller's retry first.
type slowCall struct {
	method       csi.Method
	subject      string
	retriedFirst bool
	// retry is the request that the driver serves first; nil if none has come.
	retry          any           // the request that is served first; nil if none has come
	retrySucceeded bool          // the retry has succeeded
	started        chan struct{} // closed when the driver may work on it
	done           chan struct{} // closed when the work is done
}

// start lets the driver do the work. The caller holds the environment's lock.
func (l *slowCall) start() {
	select {
	case <-l.started:
	default:
		close(l.started)
	}
}

// delayCall delays a slow or late call until its caller has given up, and a late one
// also until the caller's retry has its response. Then the scenario's disruption may
// be due.
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
				return // Nobody retries.
			}
		}
	}
}

// waitForSlowCalls makes a changing call wait for slow ones that must end before it:
// all except calls of the same kind for another object, and the retry that is served
// first.
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

// retryAnswered starts the late call of which a call was the retry.
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

// finishCall ends a call that may have been slow. It reports whether the caller's
// retry has succeeded in the meantime.
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

// callSubject returns the object that a call changes; the name for one that is
// created.
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

// shortCallTimeout is the processes' timeout for driver calls in runs with a slow
// call; longCallTimeout is the one in other runs.
const shortCallTimeout, longCallTimeout = time.Second, time.Minute

// setCallTimeouts restarts the processes with another timeout for driver calls.
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

// callTimeoutOf returns the timeout for driver calls of a role's i-th process. All
// processes use one socket: the deadline of a call shows who made it.
func (s *environment) callTimeoutOf(i int) time.Duration {
	each := longCallTimeout
	if s.shortTimeouts || s.scenario.shortTimeouts {
		each = shortCallTimeout
	}
	return time.Duration(i+1) * each
}
