package schedule

import (
	"time"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// unreadyTimeout is how long a snapshot that is not ready is given. Until then its
// claim gets no other, so that what hangs does not pile up.
const unreadyTimeout = 24 * time.Hour

// expired are the snapshots of one claim that are not to be kept, of a list with
// the newest first, and when the next will be, by the earlier clock; zero for never.
//
// Only ready ones count and the newest of them stays, whatever its age. One that
// is not ready stays for a day. After that it goes when a newer one is ready; if
// the driver has nothing of it, when there is a newer one at all; and if it can never
// be taken, in any case. Nothing goes by age while the clocks do not agree. What is
// doubtful neither counts nor goes.
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

// A retentionCounter is of the snapshots of a claim that were looked at, from the newest on.
type retentionCounter struct {
	ready    int
	hasNewer bool // there was one at all
}

// add tells until when the next older snapshot is kept because of its age, zero for
// ever, and whether there are too many newer ones.
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

// tooMany tells whether the nth ready snapshot is beyond what is kept, whatever its age.
func tooMany(keep *v1alpha1.Retention, nth int) bool {
	return keep.MaxCount != nil && nth > max(1, int(*keep.MaxCount))
}

// keptUntil is until when the nth ready snapshot is kept because of its age; zero for
// ever.
func (s *snapshotState) keptUntil(keep *v1alpha1.Retention, nth int) time.Time {
	if nth == 1 || keep.MaxAge == nil {
		return time.Time{}
	}
	return s.takenAt.Add(keep.MaxAge.Duration)
}

// withheld tells whether a snapshot of the claim stays only because the clocks do not
// agree: by one of them it would go.
func withheld(snapshots []*snapshotState, keep *v1alpha1.Retention, at clockReadings) bool {
	if at.agree() {
		return false
	}
	would, _ := expired(snapshots, keep, clockReadings{at.later(), at.later()})
	does, _ := expired(snapshots, keep, at)
	return len(would) > len(does)
}

// withheld tells whether that is so of any claim.
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

// minNonZero is the earlier of two times, where zero is never.
func minNonZero(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
