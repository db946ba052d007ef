package retention

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

// defaultMinCount is that of the API.
const defaultMinCount = 1

// maxClockSkew is by how much the clocks of nodes may differ. It is above the error of
// the estimated time of the API server, by which the present may seem to be the future.
const maxClockSkew = time.Minute

// A reading is what the clocks of this machine and of the API server say at one moment. What
// is too old by the earlier one is so by both; what is in the future by the later one, too.
type reading struct{ earlier, later time.Time }

// A plan says which Checkpoints of a policy are kept and which are not.
type plan struct {
	// kept is how many ready Checkpoints are kept, and workloads of how many workloads.
	kept, workloads int
	// expired are those to be deleted, oldest first.
	expired []expired
	// next is when the next of the kept ones is too old; zero for never.
	next time.Time
	// rejected is why expired ones could not be deleted.
	rejected error
	// undeleted are those that are deleted and whose data cannot be deleted.
	undeleted []*v1alpha1.Checkpoint
}

// An expired Checkpoint is one that the policy does not keep.
type expired struct {
	checkpoint *v1alpha1.Checkpoint
	takenAt    time.Time
	limit      limit
	why        string
}

// A limit is the field of a policy that a Checkpoint exceeds.
type limit string

const (
	maxCount limit = "maxCount"
	maxAge   limit = "maxAge"
)

// decide has all rules of retention. It does no I/O and changes none of the Checkpoints.
// Without retention it keeps all.
func decide(all []*v1alpha1.Checkpoint, keep *v1alpha1.CheckpointRetention, at reading) plan {
	var p plan
	groups := map[group][]*v1alpha1.Checkpoint{}
	for _, c := range all {
		switch {
		case isDeleting(c):
			p.addDeleting(c)
		case counts(c):
			groups[groupOf(c)] = append(groups[groupOf(c)], c)
		}
	}
	for _, members := range groups {
		p.add(members, keep, at)
	}
	slices.SortFunc(p.expired, func(a, b expired) int {
		return cmp.Or(a.takenAt.Compare(b.takenAt), cmp.Compare(a.checkpoint.UID, b.checkpoint.UID))
	})
	return p
}

func (p *plan) addDeleting(c *v1alpha1.Checkpoint) {
	if isStuck(c) {
		p.undeleted = append(p.undeleted, c)
	}
}

// add decides about the Checkpoints of one group.
func (p *plan) add(members []*v1alpha1.Checkpoint, keep *v1alpha1.CheckpointRetention, at reading) {
	sortNewestFirst(members, at)
	p.workloads++
	for i, c := range members {
		taken := takenAt(c, at)
		until := keptUntil(taken, i, keep)
		switch {
		case keep != nil && keep.MaxCount != nil && i >= int(*keep.MaxCount):
			p.expired = append(p.expired, expired{c, taken, maxCount, fmt.Sprintf("%d newer ones are kept", *keep.MaxCount)})
		case until.IsZero():
			p.kept++
		case until.After(at.earlier):
			p.kept++
			if p.next.IsZero() || until.Before(p.next) {
				p.next = until
			}
		default:
			p.expired = append(p.expired, expired{c, taken, maxAge, "older than " + keep.MaxAge.Duration.String()})
		}
	}
}

// keptUntil returns until when a Checkpoint is kept because of its age, given how many newer
// ones there are; zero for ever.
func keptUntil(taken time.Time, newer int, keep *v1alpha1.CheckpointRetention) time.Time {
	if keep == nil || keep.MaxAge == nil {
		return time.Time{}
	}
	minCount := defaultMinCount
	if keep.MinCount != nil {
		minCount = int(*keep.MinCount)
	}
	if newer < minCount {
		return time.Time{}
	}
	return taken.Add(keep.MaxAge.Duration)
}

// sortNewestFirst sorts Checkpoints. Of two of the same moment, as far as that is known, the
// one whose node says that it is newer comes first.
func sortNewestFirst(all []*v1alpha1.Checkpoint, at reading) {
	slices.SortFunc(all, func(a, b *v1alpha1.Checkpoint) int {
		return cmp.Or(takenAt(b, at).Compare(takenAt(a, at)),
			b.Status.CheckpointTime.Compare(a.Status.CheckpointTime.Time), cmp.Compare(b.UID, a.UID))
	})
}

// takenAt returns the moment that a Checkpoint is of. The node's clock says it, and may be
// wrong: a Checkpoint is not taken before it is created, by the clock of the API server, and
// not in the future. One with an impossible time was taken when it was created: otherwise,
// one of a node whose clock is ahead would be the newest for as long, and the really newest
// ones would be deleted as surplus.
func takenAt(c *v1alpha1.Checkpoint, at reading) time.Time {
	taken, created := c.Status.CheckpointTime.Time, c.CreationTimestamp.Time
	if taken.Before(created) || taken.After(at.later.Add(maxClockSkew)) {
		return created
	}
	return taken
}

// A group identifies the Checkpoints that are counted together: those of the same containers
// of one workload. Which version of its API the workload has does not matter.
type group struct {
	namespace string
	kind      schema.GroupKind
	workload  string
	// containers is * or the name of a container.
	containers string
}

func groupOf(c *v1alpha1.Checkpoint) group {
	w := c.Status.Workload
	return group{
		namespace: cmp.Or(c.Spec.Target.Namespace, c.Namespace),
		kind:      schema.FromAPIVersionAndKind(w.APIVersion, w.Kind).GroupKind(), workload: w.Name,
		containers: containersOf(c),
	}
}

// containersOf returns the name of the container, also if the target leaves it open, or *.
func containersOf(c *v1alpha1.Checkpoint) string {
	if name := c.Spec.Target.ContainerName; name != "" {
		return name
	}
	return c.Status.Containers[0].Name
}

// counts reports whether a Checkpoint is ready, and its status says what it is of.
func counts(c *v1alpha1.Checkpoint) bool {
	return isReady(c) && c.Status.Workload != nil && c.Status.CheckpointTime != nil && len(c.Status.Containers) > 0
}

func isReady(c *v1alpha1.Checkpoint) bool {
	return meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionReady)
}

func isDeleting(c *v1alpha1.Checkpoint) bool { return !c.DeletionTimestamp.IsZero() }

// isStuck reports whether an agent or the operator has reported that the data of a deleted
// Checkpoint cannot be deleted.
func isStuck(c *v1alpha1.Checkpoint) bool {
	ready := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Status == metav1.ConditionFalse &&
		slices.Contains([]string{v1alpha1.ReasonDeleting, v1alpha1.ReasonNoAgent, v1alpha1.ReasonNodeLost}, ready.Reason)
}

// message describes deletions, for an event.
func message(deleted []expired) string {
	var parts []string
	for _, e := range deleted {
		parts = append(parts, fmt.Sprintf("%s/%s (%s)", e.checkpoint.Namespace, e.checkpoint.Name, e.why))
	}
	return fmt.Sprintf("deleted %d: %s", len(deleted), strings.Join(parts, ", "))
}
