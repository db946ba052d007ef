package restore

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// again returns the ticket by which a container that was restored is restored again when it
// ends; nil if there is none. Its data stay on the node until then.
func (c *container) again() *ticket.Ticket {
	for _, t := range []*ticket.Ticket{c.issued, c.claimed} {
		if t != nil && t.Again {
			return t
		}
	}
	return nil
}

// againProblem returns why a container is not restored again, which the pod has to say; nil if
// it is. The Checkpoint may be deleted meanwhile: then its data go from the node, too.
func (s *state) againProblem(c *container) *problem {
	switch o := c.outcome; {
	case c.again() == nil:
		return nil
	case s.problem != nil && !s.problem.temporary:
		return &problem{reason: s.problem.reason, message: fmt.Sprintf("container %s is not restored again: %s", c.name, s.problem.message)}
	case o == nil || o.Error == "" || o.Interrupted || s.policy.OnFailure == v1alpha1.OnFailureRetry && !o.Incompatible:
		return nil
	default:
		return &problem{reason: v1alpha1.ReasonRestoreFailed, message: fmt.Sprintf("restoring container %s again: %s", c.name, o.Error)}
	}
}

// lostData is why a container is not restored again whose policy says that it is: its
// Checkpoint, or what the node has of it, is gone.
func (s *state) lostData(c *container) *problem {
	p := &problem{reason: v1alpha1.ReasonCheckpointNotFound, message: fmt.Sprintf("container %s is not restored again: its data are not on the node any more", c.name)}
	if s.problem != nil {
		p.message = fmt.Sprintf("container %s is not restored again: %s", c.name, s.problem.message)
	}
	return p
}

// decisionAfterAgain returns the decision about further starts of a container that cannot be
// restored again.
func (s *state) decisionAfterAgain(c *container) ticket.Decision {
	isFresh := s.policy.OnFailure == v1alpha1.OnFailureStartFresh
	if t := c.again(); t != nil && s.checkpoint == nil {
		isFresh = t.FreshAfter
	}
	if isFresh {
		return ticket.StartFresh
	}
	return ticket.Fail
}

// failAgain records that a container is not restored again. It may run: then that matters when
// it ends.
func (r *Reconciler) failAgain(ctx context.Context, s *state, c *container, p *problem) error {
	message := p.message + "; it does not start any more when it ends (onFailure: Fail)"
	if s.decisionAfterAgain(c) == ticket.StartFresh {
		message = p.message + "; it starts without the state of the Checkpoint when it ends (onFailure: StartFresh)"
	}
	if err := r.record(ctx, s, corev1.PodCondition{Status: corev1.ConditionFalse, Reason: p.reason, Message: message}, false); err != nil {
		return err
	}
	r.count(ctx, s, failed, func(n *v1alpha1.RestoreCounts) { n.Failed++ })
	r.events.Warning(s.pod, p.reason, message)
	return nil
}
