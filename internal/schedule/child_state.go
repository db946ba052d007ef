package schedule

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A childState is the observed state of a child.
type childState struct {
	childStatus

	name, resourceVersion string
	uid                   types.UID
	run, runID            string // as in runAnnotation and runIDAnnotation
	createdAt             time.Time
	deleting              bool
	// fromFuture is set if the creation timestamp is in the future: a clock was wrong at that
	// time.
	fromFuture bool
	// targetGone is set if the target does not exist any more, and ofSuccessor if the child
	// was taken when another target had its name: see resolveTargets.
	targetGone, ofSuccessor bool
}

// childStateOf converts a child. The time at which it was taken counts only if it is between
// the creation of the object and now. A driver may report none, which is read as 1970, or its
// clock may be ahead, which would make its snapshot the newest for that long. A child that was
// retried for hours is younger than its object.
func childStateOf(k kind, o client.Object, at clockReadings) *childState {
	s := &childState{
		childStatus: k.childStatus(o), name: o.GetName(), resourceVersion: o.GetResourceVersion(), uid: o.GetUID(),
		run: o.GetAnnotations()[runAnnotation], runID: o.GetAnnotations()[runIDAnnotation],
		createdAt: o.GetCreationTimestamp().UTC(), deleting: o.GetDeletionTimestamp() != nil,
	}
	reported, now := s.takenAt, at.later()
	s.takenAt, s.fromFuture = s.createdAt, s.createdAt.After(at.serverTime().Add(maxClockSkew))
	if !reported.IsZero() && !reported.After(now.Add(maxClockSkew)) {
		s.takenAt = maxTime(s.createdAt, minTime(reported.UTC(), now))
	}
	return s
}

// childStatesOf converts a list of children.
func childStatesOf(k kind, list client.ObjectList, at clockReadings) ([]*childState, error) {
	children := make([]*childState, 0, meta.LenList(list))
	err := meta.EachListItem(list, func(o runtime.Object) error {
		children = append(children, childStateOf(k, o.(client.Object), at)) //nolint:forcetypeassert // All items are objects.
		return nil
	})
	return children, err
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// byTarget groups children by target, newest first.
func byTarget(all []*childState) map[types.UID][]*childState {
	return groupNewestFirst(all, func(s *childState) types.UID { return s.target })
}

// byHistory groups children by history, newest first. It leaves out those whose history is
// unknown because somebody has removed their label.
func byHistory(all []*childState) map[string][]*childState {
	histories := groupNewestFirst(all, func(s *childState) string { return s.history })
	delete(histories, "")
	return histories
}

func groupNewestFirst[K comparable](all []*childState, key func(*childState) K) map[K][]*childState {
	groups := map[K][]*childState{}
	for _, s := range all {
		groups[key(s)] = append(groups[key(s)], s)
	}
	for _, children := range groups {
		slices.SortFunc(children, compareNewestFirst)
	}
	return groups
}

// compareNewestFirst orders children by when they were taken, newest first. Those with an
// unknown time are last.
func compareNewestFirst(a, b *childState) int {
	return cmp.Or(compareBool(a.fromFuture, b.fromFuture), b.takenAt.Compare(a.takenAt), b.createdAt.Compare(a.createdAt), cmp.Compare(b.name, a.name))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// newestReady returns the newest usable child, or nil.
func newestReady(children []*childState) *childState {
	for _, s := range children {
		if s.isUsable() {
			return s
		}
	}
	return nil
}

// isUsable reports whether the child can be restored from, also later.
func (s *childState) isUsable() bool { return s.ready && !s.deleting }

// isInProgress reports whether a child may become ready. A child from the future does
// not count: that could last as long as a clock was ahead.
func (s *childState) isInProgress() bool {
	return !s.ready && !s.deleting && !s.fromFuture && !s.cannotSucceed()
}

// cannotSucceed reports whether a child can never become ready: it has failed, or its target
// was deleted before anybody began.
func (s *childState) cannotSucceed() bool {
	return s.failed || s.targetGone && !s.ready && !s.hasData && !s.started
}

// isDoubtful reports whether a child's target or time may be wrong. Such a child is no
// reason to delete others, and only users delete it.
func (s *childState) isDoubtful() bool { return s.fromFuture || s.ofSuccessor }

// resolveTargets finds out what became of the children's targets, by name. A target with the
// same name and another UID was created after the child's target was deleted: children taken
// since are of that target, unless the child says otherwise.
func resolveTargets(children []*childState, byName map[string]*target) {
	for _, s := range children {
		if !s.needsTarget() {
			continue
		}
		t := byName[s.targetName]
		s.targetGone = t == nil || t.UID != s.target
		s.ofSuccessor = s.targetGone && t != nil && (s.hasData || s.ready) && !s.takenAt.Before(t.CreatedAt)
	}
}

// needsTarget reports whether it matters what became of a child's target.
func (s *childState) needsTarget() bool {
	return s.target != "" && s.targetName != "" && !s.targetCertain
}
