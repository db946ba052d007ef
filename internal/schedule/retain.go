package schedule

import (
	"time"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// abandoned is how long a snapshot that is not ready is given. Until then its
// claim gets no other, so that what hangs does not pile up.
const abandoned = 24 * time.Hour

// expired are the snapshots of one claim that are not to be kept, of a list with
// the newest first, and when the next will be; zero for never.
//
// Only ready ones count and the newest of them stays, whatever its age. One that
// is not ready stays for a day. After that it goes when a newer one is ready; if
// the driver has nothing of it, when there is a newer one at all.
func expired(shots []*shot, keep *v1alpha1.Retention, now time.Time) (gone []*shot, next time.Time) {
	if keep == nil {
		return nil, next
	}
	ready, newer := 0, false
	for _, s := range shots {
		if s.deleting {
			continue
		}
		var until time.Time
		if s.ready {
			ready++
			until = s.keptUntil(keep, ready)
		} else if ready > 0 || newer && !s.cut {
			until = s.created.Add(abandoned)
		}
		newer = true
		if until.IsZero() || until.After(now) {
			next = sooner(next, until)
			continue
		}
		gone = append(gone, s)
	}
	return gone, next
}

// keptUntil is until when the nth ready snapshot is kept; zero for ever. What is
// too many is not kept at all.
func (s *shot) keptUntil(keep *v1alpha1.Retention, nth int) time.Time {
	switch {
	case nth == 1:
		return time.Time{}
	case keep.MaxCount != nil && nth > int(*keep.MaxCount):
		return s.taken
	case keep.MaxAge != nil:
		return s.taken.Add(keep.MaxAge.Duration)
	}
	return time.Time{}
}

// sooner is the earlier of two times, where zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
