package schedule

import (
	"time"
)

// unreadyTimeout is how long an unready child is kept in any case. Until then its target
// gets no other child, so that hanging children do not pile up.
const unreadyTimeout = 24 * time.Hour

// expired returns the expired children of one history, given its children with the newest
// first, and when the next one expires by the earlier clock; zero for never.
//
// Only ready children count, and the newest of them is kept regardless of age. An unready
// child is kept for a day. After that it expires if a newer one is ready, or if any newer
// one exists and it has no data, or if it can never be taken. While the clocks
// differ, no child expires because of its age. Failed children have a count of their own. Doubtful children neither count nor expire.
func expired(children []*childState, keep *retention, at clockReadings) (gone []*childState, next time.Time) {
	if keep == nil {
		return nil, next
	}
	var c retentionCounter
	for _, s := range children {
		if s.deleting || s.isDoubtful() {
			continue
		}
		until, surplus := c.add(s, keep)
		switch {
		case surplus:
			gone = append(gone, s)
		case until.IsZero():
		case until.After(at.earlier()):
			next = minNonZero(next, until)
		case at.agree():
			gone = append(gone, s)
		}
	}
	return gone, next
}

// A retentionCounter counts the children of a history, from the newest on.
type retentionCounter struct {
	ready    int
	failed   int
	hasNewer bool // there was one at all
}

// add counts the next older child. It returns until when the child is kept because of
// its age (zero for ever), and whether there are too many newer ones.
func (c *retentionCounter) add(s *childState, keep *retention) (until time.Time, surplus bool) {
	defer func() { c.hasNewer = true }()
	switch {
	case s.ready:
		c.ready++
		return s.keptUntil(keep, c.ready), tooMany(keep, c.ready)
	case s.failed && keep.MaxFailed != nil:
		c.failed++
		return time.Time{}, c.failed > int(*keep.MaxFailed)
	case s.cannotSucceed(), c.ready > 0, c.hasNewer && !s.hasData:
		return s.createdAt.Add(unreadyTimeout), false
	default:
		return time.Time{}, false
	}
}

// tooMany reports whether the nth ready child exceeds maxCount.
func tooMany(keep *retention, nth int) bool {
	return keep.MaxCount != nil && nth > max(1, int(*keep.MaxCount))
}

// keptUntil returns until when the nth ready child is kept because of its age; zero for
// ever.
func (s *childState) keptUntil(keep *retention, nth int) time.Time {
	if nth == 1 || keep.MaxAge == nil {
		return time.Time{}
	}
	return s.takenAt.Add(keep.MaxAge.Duration)
}

// withheld reports whether a child of a history is kept only because the clocks differ: it
// would be expired by one of them.
func withheld(children []*childState, keep *retention, at clockReadings) bool {
	if at.agree() {
		return false
	}
	would, _ := expired(children, keep, clockReadings{at.later(), at.later()})
	does, _ := expired(children, keep, at)
	return len(would) > len(does)
}

// withheld reports whether a child of any history is kept only because the clocks differ.
func (s *state) withheld(at clockReadings) bool {
	if s.schedule.Spec.Suspend {
		return false
	}
	for _, history := range byHistory(s.children) {
		if withheld(history, s.schedule.Spec.Retention, at) {
			return true
		}
	}
	return false
}

// minNonZero returns the earlier of two times, where zero means never.
func minNonZero(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
