package wrapper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/ticket"
)

// An action is what becomes of a call of create.
type action int

const (
	pass     action = iota // the real runtime creates the container
	restore                // by the ticket
	fail                   // by the ticket
	waitMore               // for a ticket
)

// A situation is everything that decides about a call of create.
type situation struct {
	request string         // of the specification, "" if it has none
	ticket  *ticket.Ticket // nil if there is none
	err     error          // why it cannot be read; nil without a ticket
	// undecided is whether a ticket was claimed, and the agent has not decided what comes after
	// it: whether its restore is repeated, or has failed for good, or the container may start
	// afresh.
	undecided bool
}

// decide has every rule about tickets. A container that nobody has asked to restore starts.
// One that somebody has asked to restore starts by a ticket only.
func decide(s situation) action {
	if s.ticket == nil || s.err != nil {
		if s.request != "" || s.undecided {
			return waitMore
		}
		return pass
	}
	if s.request != "" && s.ticket.Request != s.request {
		return waitMore // The annotation has changed, and the agent has not seen that yet.
	}
	return obey(s.ticket)
}

func obey(t *ticket.Ticket) action {
	switch t.Decision {
	case ticket.Restore:
		return restore
	case ticket.StartFresh:
		return pass
	case ticket.Fail:
		return fail
	default:
		return waitMore // Only a newer agent knows what it means.
	}
}

// observe reads what the agent has left for a container.
func observe(place *ticket.Container, request string) situation {
	s := situation{request: request}
	s.ticket, s.err = place.Ticket()
	if errors.Is(s.err, ticket.ErrNone) {
		s.ticket, s.err = nil, nil
		_, err := place.Claimed()
		s.undecided = !errors.Is(err, ticket.ErrNone)
	}
	return s
}

// ticketPoll is how often the wrapper looks for a ticket.
const ticketPoll = 20 * time.Millisecond

// await looks until the agent has decided, at most for the time that ctx has.
func await(ctx context.Context, place *ticket.Container, request string) (action, situation) {
	tick := time.NewTicker(ticketPoll)
	defer tick.Stop()
	for {
		s := observe(place, request)
		if a := decide(s); a != waitMore {
			return a, s
		}
		select {
		case <-ctx.Done():
			return waitMore, s
		case <-tick.C:
		}
	}
}

// noTicket says why a container does not start without a ticket, and what to look at.
func noTicket(s situation, place *ticket.Container, waited time.Duration) error {
	reason := fmt.Sprintf("the agent has issued no ticket within %s", waited)
	switch {
	case s.err != nil:
		reason = fmt.Sprintf("its ticket cannot be used: %v", s.err)
	case s.ticket != nil && s.ticket.Request != s.request:
		reason = fmt.Sprintf("within %s the agent has issued a ticket for %q only", waited, s.ticket.Request)
	case s.ticket != nil:
		reason = fmt.Sprintf("its ticket has the decision %q, which this version does not know", s.ticket.Decision)
	case s.undecided:
		reason = fmt.Sprintf("the container was restored before, or was to be, and the agent has decided nothing since, for %s", waited)
	}
	what := "the container waits for the restore"
	if s.request != "" {
		what += " from " + s.request
	}
	progress := place.Progress()
	if progress == "" {
		progress = "the agent has not begun"
	}
	return fmt.Errorf("%s: %s (%s); the kubelet tries again. See kubectl describe pod, "+
		"and whether the agent (holdfast node) runs on this node", what, reason, progress)
}
