package crash

import (
	"context"
	"fmt"
	"slices"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// A lateCall is one that the driver works on when its caller has given up. As with
// a queue of an array, whatever else is to change waits for it then. If it is
// overtaken, the caller's next try comes first.
type lateCall struct {
	method     csi.Method
	subject    string
	overtaken  bool
	repetition any           // the request that overtakes it; nil if none has come
	answered   bool          // the repetition, with what was asked for
	begun      chan struct{} // closed when its turn has come
	done       chan struct{} // closed when the work is done
}

// begin lets the driver do the work. The caller holds the stage's lock.
func (l *lateCall) begin() {
	select {
	case <-l.begun:
	default:
		close(l.begun)
	}
}

// outlast holds up a call that is slow or late until its caller has given up, or
// has got an answer to its next try. Then it may be the scenario's turn.
func (s *stage) outlast(ctx context.Context, method csi.Method, req any, hit *blow) {
	l := &lateCall{method: method, subject: subjectOf(req), overtaken: hit.late, begun: make(chan struct{}), done: make(chan struct{})}
	s.mu.Lock()
	s.late[req] = l
	s.mu.Unlock()
	s.noteUnsure(req, true)
	<-ctx.Done()
	s.takeTurn(hit)
	if !l.overtaken {
		return
	}
	for {
		select {
		case <-l.begun:
			time.Sleep(lull)
			return
		case <-time.After(pulse):
			if s.trace.quiet(silence) {
				return // Nobody asks again.
			}
		}
	}
}

// queue has a call wait for late ones if they must have an end before it: all but
// questions, calls of the same kind about something else, and the repetition that
// overtakes.
func (s *stage) queue(method csi.Method, req any) {
	if !slices.Contains(changers, method) {
		return
	}
	var before []*lateCall
	s.mu.Lock()
	for _, l := range s.late {
		same := l.method == method && l.subject == subjectOf(req)
		switch {
		case l.method == method && !same:
		case same && l.overtaken && l.repetition == nil:
			l.repetition = req
		default:
			l.begin()
			before = append(before, l)
		}
	}
	s.mu.Unlock()
	for _, l := range before {
		<-l.done
	}
}

// answered lets the late call begin that a call was the repetition of.
func (s *stage) answered(req any, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.late {
		if l.repetition == req {
			l.answered = err == nil
			l.begin()
		}
	}
}

// finished ends a call that may have been late. It tells whether its caller had
// got what it asked for in the meantime.
func (s *stage) finished(req any) (obsolete bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.late[req]
	if !ok {
		return false
	}
	delete(s.late, req)
	close(l.done)
	return l.answered
}

// subjectOf is what a call is about that changes something: what is made goes by
// its name.
func subjectOf(req any) string {
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

// impatience is what a process gives a call to the driver in runs with a call
// that takes longer; patience with calls is what it gives them in others.
const impatience, patienceWithCalls = time.Second, time.Minute

// hurry has the processes give calls little time, or much.
func (s *stage) hurry(hasty bool) {
	if s.hasty == hasty {
		return
	}
	s.hasty = hasty
	for i, c := range s.controllers {
		c.kill()
		c.calls = s.callTime(i)
		c.start()
	}
}

// callTime is what the i-th process of a role gives a call to the driver. All
// come through one socket: how much time a call has tells whose it is.
func (s *stage) callTime(i int) time.Duration {
	each := patienceWithCalls
	if s.hasty || s.scenario.brief {
		each = impatience
	}
	return time.Duration(i+1) * each
}
