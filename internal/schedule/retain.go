package schedule

import (
	"time"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// unreadyTimeout is how long an unready snapshot is kept in any case. Until then its claim
// gets no other snapshot, so that hanging snapshots do not pile up.
const unreadyTimeout = 24 * time.Hour

// expired returns the expired snapshots of one claim, given its snapshots with the newest
// first, and when the next one expires by the earlier clock; zero for never.
//
// Only ready snapshots count, and the newest of them is kept regardless of age. An unready
// snapshot is kept for a day. After that it expires if a newer one is ready, or if any newer
// one exists and the driver has nothing of it, or if it can never be taken. While the clocks
// differ, no snapshot expires because of its age. Doubtful snapshots neither count nor expire.
func expired(snapshots []*snapshotState, keep *v1alpha1.Retention, at clockReadings) (gone []*snapshotState, next time.Time) {
	if keep == nil {
		return nil, next
	}
	var c retentionCounter
	for _, s := range snapshots {
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

// A retentionCounter counts the snapshots of a claim, from the newest on.
type retentionCounter struct {
	ready    int
	hasNewer bool // there was one at all
}

// add counts the next older snapshot. It returns until when the snapshot is kept because of
// its age (zero for ever), and whether there are too many newer ones.
func (c *retentionCounter) add(s *snapshotState, keep *v1alpha1.Retention) (until time.Time, surplus bool) {
	defer func() { c.hasNewer = true }()
	switch {
	case s.ready:
		c.ready++
		return s.keptUntil(keep, c.ready), tooMany(keep, c.ready)
	case s.cannotSucceed(), c.ready > 0, c.hasNewer && !s.atDriver:
		return s.createdAt.Add(unreadyTimeout), false
	default:
		return time.Time{}, false
	}
}

// tooMany reports whether the nth ready snapshot exceeds maxCount.
func tooMany(keep *v1alpha1.Retention, nth int) bool {
	return keep.MaxCount != nil && nth > max(1, int(*keep.MaxCount))
}

// keptUntil returns until when the nth ready snapshot is kept because of its age; zero for
// ever.
func (s *snapshotState) keptUntil(keep *v1alpha1.Retention, nth int) time.Time {
	if nth == 1 || keep.MaxAge == nil {
		return time.Time{}
	}
	return s.takenAt.Add(keep.MaxAge.Duration)
}

// withheld reports whether a snapshot of the claim is kept only because the clocks differ: it
// would be expired by one of them.
func withheld(snapshots []*snapshotState, keep *v1alpha1.Retention, at clockReadings) bool {
	if at.agree() {
		return false
	}
	would, _ := expired(snapshots, keep, clockReadings{at.later(), at.later()})
	does, _ := expired(snapshots, keep, at)
	return len(would) > len(does)
}

// withheld reports whether a snapshot of any claim is kept only because the clocks differ.
func (s *state) withheld(at clockReadings) bool {
	if s.schedule.Spec.Suspend {
		return false
	}
	for claim, snapshots := range byClaim(s.snapshots) {
		if claim != "" && withheld(snapshots, s.schedule.Spec.Retention, at) {
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
