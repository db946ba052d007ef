package restore

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// An action is what the agent does next.
type action int

const (
	forget       action = iota // remove what is left of a request that was withdrawn
	settle                     // see that the containers of a settled request can start
	fail                       // record that the pod is not restored
	postpone                   // record why it is not restored yet
	askForVolume               // that has the data, on this node
	stage                      // fetch the data and issue tickets
	reissue                    // issue a ticket anew whose wrapper died, or that has expired
	stop                       // end running containers, so that they are started with their tickets
	await                      // until the kubelet and the wrapper have done their part
	succeed                    // record that the pod is restored
)

// A step is a decision.
type step struct {
	action     action
	containers []*container // of reissue and stop
	problem    *problem     // of fail and postpone
}

// decide has all rules. It does no I/O, and its test has a row for each rule.
func decide(s *state, now time.Time) step {
	switch {
	case s.request == "":
		return step{action: forget}
	case s.isSettled():
		return step{action: settle}
	case s.problem != nil && s.problem.temporary:
		return step{action: postpone, problem: s.problem}
	case s.problem != nil:
		return step{action: fail, problem: s.problem}
	}
	return s.decideTargets(now)
}

func (s *state) decideTargets(now time.Time) step {
	targets := s.targets()
	if slices.ContainsFunc(targets, (*container).mayStart) {
		return step{action: await} // The outcome is on record, and the cache does not have it yet.
	}
	if failed := s.failure(targets); failed != nil {
		return step{action: fail, problem: failed}
	}
	left := slices.DeleteFunc(slices.Clone(targets), (*container).restored)
	if len(left) == 0 {
		return step{action: succeed}
	}
	// In this order: nothing is stopped before all that is needed is on the node.
	for _, next := range []struct {
		action  action
		applies func(*container) bool
	}{
		{stage, func(c *container) bool { return c.needsData(now) }},
		{reissue, func(c *container) bool { return c.needsTicket(now) }},
		{stop, func(c *container) bool { return c.issued != nil && c.runningID != "" }},
	} {
		chosen := filterContainers(left, next.applies)
		switch {
		case len(chosen) == 0:
		case next.action == stage:
			return s.decideStage(chosen)
		default:
			return step{action: next.action, containers: chosen}
		}
	}
	return step{action: await}
}

func filterContainers(all []*container, applies func(*container) bool) []*container {
	var chosen []*container
	for _, c := range all {
		if applies(c) {
			chosen = append(chosen, c)
		}
	}
	return chosen
}

// mayStart reports whether there is a ticket that does not restore. Containers of the
// Checkpoint get one only when the request is settled.
func (c *container) mayStart() bool {
	return c.issued != nil && c.issued.Decision != ticket.Restore
}

// needsTicket reports whether the ticket is of no use any more: it has expired, its wrapper
// died, or its restore has failed and is to be repeated.
func (c *container) needsTicket(now time.Time) bool {
	if c.claimed != nil {
		return !c.inUse && !c.isUnconfirmed(now)
	}
	return c.issued != nil && now.After(c.issued.Expires)
}

// failure returns why a restore has failed for good; nil if none has.
func (s *state) failure(targets []*container) *problem {
	for _, c := range targets {
		if c.outcome == nil || c.outcome.Error == "" || c.outcome.Interrupted || c.lost {
			continue // Without its data no restore succeeds, which says nothing about the next one.
		}
		p := &problem{reason: v1alpha1.ReasonRestoreFailed, message: fmt.Sprintf("restoring container %s: %s", c.name, c.outcome.Error)}
		if c.outcome.Incompatible {
			p.reason = v1alpha1.ReasonIncompatible
		}
		if c.outcome.Incompatible || s.policy.OnFailure != v1alpha1.OnFailureRetry {
			return p
		}
	}
	return nil
}

// decisionAfter returns the decision about further starts of a container once the request is
// settled. A container that runs was not touched, or has been restored: if it ends later it
// starts as usual, or is restored again if the policy says so. One that could not be
// restored does not start, unless the policy says so.
func (s *state) decisionAfter(c *container, restored bool) ticket.Decision {
	restored = restored || c.again() != nil
	switch {
	case s.againProblem(c) != nil:
		return s.decisionAfterAgain(c)
	case !c.target && restored, restored && s.policy.OnRestart != v1alpha1.OnRestartRestore:
		return ticket.StartFresh
	case restored:
		return ticket.Restore
	case c.runningID != "" || s.policy.OnFailure == v1alpha1.OnFailureStartFresh:
		return ticket.StartFresh
	default:
		return ticket.Fail
	}
}

// isOver reports whether a pod never starts a container again.
func isOver(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
