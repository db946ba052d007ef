package restore

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// A state is what the agent knows about a pod that asks for a restore.
type state struct {
	pod     *corev1.Pod
	request string // value of the annotation
	// checkpoint and policy are what the request names; nil if problem says why not.
	checkpoint *v1alpha1.Checkpoint
	policy     v1alpha1.RestoreOptions
	// problem is why the pod cannot be restored, or not yet.
	problem    *problem
	containers []*container
}

// A container is one of the pod.
type container struct {
	name string
	// target is whether the Checkpoint has it. Others start as usual.
	target bool
	// runningID is its ID while it runs.
	runningID string
	place     *ticket.Container

	issued, claimed *ticket.Ticket // of this request; nil if there is none
	inUse           bool           // a wrapper works on the claimed ticket
	outcome         *ticket.Outcome
	// lost is whether the data of the ticket to restore are gone: those in RAM do not survive the
	// node.
	lost bool
	// reported is whether the kubelet has reported the container of the outcome: the wrapper may
	// be killed when it has restored it, and then the CRI runtime deletes it.
	reported bool
}

// A problem is why a pod is not restored.
type problem struct {
	reason, message string
	// temporary is whether it may pass without a change by a user.
	temporary bool
}

// targets returns the containers that the Checkpoint has.
func (s *state) targets() []*container {
	return filterContainers(s.containers, func(c *container) bool { return c.target })
}

// restored reports whether the container was restored.
func (c *container) restored() bool {
	return c.outcome != nil && c.outcome.Error == "" && c.reported
}

// needsData reports whether the data have to be fetched: there is no ticket yet, or its data
// are gone, and nobody works with it.
func (c *container) needsData(now time.Time) bool {
	if c.issued == nil && c.claimed == nil {
		return true
	}
	return c.lost && !c.inUse && !c.isUnconfirmed(now)
}

// fetched returns how the data of the container came to the node.
func (c *container) fetched() ticket.Fetched {
	for _, t := range []*ticket.Ticket{c.claimed, c.issued} {
		if t != nil {
			return t.Fetched
		}
	}
	return ticket.Fetched{}
}

// isUnconfirmed reports whether the wrapper has restored the container, and the kubelet may
// still report it.
func (c *container) isUnconfirmed(now time.Time) bool {
	return c.outcome != nil && c.outcome.Error == "" && !c.reported && now.Sub(c.outcome.Ended) < reportTime
}

// reportTime is how long the kubelet may take to report a container.
const reportTime = time.Minute

// isRelaxed reports whether the pod and its node need not be like those of the Checkpoint.
func (s *state) isRelaxed() bool { return s.policy.Match == v1alpha1.MatchCompatible }

// isSettled reports whether the outcome of the request is on record.
func (s *state) isSettled() bool {
	return s.pod.Annotations[v1alpha1.AnnotationObservedRestoreFrom] == s.request
}

// expiry is for how long a ticket is valid: until then the kubelet has started the container.
const expiry = 30 * time.Minute
