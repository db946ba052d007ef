package node

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

// state is what the agent knows about one Checkpoint.
type state struct {
	checkpoint *v1alpha1.Checkpoint
	// dumped is whether the node has dumps that are not stored yet, and complete whether it has
	// one of each container.
	dumped, complete bool
}

// An action is what the agent does next.
type action int

const (
	none       action = iota
	wait              // until the next attempt is due
	dump              // record an attempt and dump the containers
	save              // store what was dumped
	giveUp            // report that the Checkpoint will never be ready
	discard           // remove dumps that nobody needs any more
	deleteData        // delete what is stored, and the finalizer
)

// A step is a decision.
type step struct {
	action action
	after  time.Duration // of wait
}

// decide has all rules of the agent. It does no I/O, and its test has a row for each rule.
func decide(s *state, o *Options, now time.Time) step {
	c := s.checkpoint
	switch {
	case !c.DeletionTimestamp.IsZero():
		return s.decideDeletion(o)
	case isComplete(c) || c.Status.SourceNode != o.Node:
		return s.decideUnneeded()
	case c.Status.NextAttemptTime != nil && c.Status.NextAttemptTime.After(now):
		return step{action: wait, after: c.Status.NextAttemptTime.Sub(now)}
	case s.complete:
		return step{action: save}
	case c.Status.Attempts >= o.Attempts:
		return step{action: giveUp}
	case awaitsVolume(c):
		return step{action: none}
	default:
		return step{action: dump}
	}
}

func (s *state) decideDeletion(o *Options) step {
	c := s.checkpoint
	switch {
	case c.Status.NodeName != o.Node || !controllerutil.ContainsFinalizer(c, v1alpha1.Finalizer):
		return s.decideUnneeded()
	case awaitsVolume(c) && hasData(c) && !ownsVolume(c):
		return step{action: none}
	default:
		return step{action: deleteData}
	}
}

func (s *state) decideUnneeded() step {
	if s.dumped {
		return step{action: discard}
	}
	return step{action: none}
}

func isComplete(c *v1alpha1.Checkpoint) bool {
	return meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionReady) ||
		meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionFailed)
}

// backoff returns the pause before the next attempt after a number of failed ones.
func (o *Options) backoff(failed int32) time.Duration {
	pause := o.RetryStart
	for range failed {
		if pause *= 2; pause >= o.RetryMax {
			return o.RetryMax
		}
	}
	return pause
}
