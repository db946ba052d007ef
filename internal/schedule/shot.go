package schedule

import (
	"cmp"
	"slices"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// A shot is a snapshot as schedules see it.
type shot struct {
	name, version string
	uid, claim    types.UID
	claimName     string
	run, runID    string // as in runAnnotation and runIDAnnotation
	created       time.Time
	// taken is from when its data are, as far as can be told: see shotOf.
	taken time.Time
	ready bool
	// cut says that the driver has it, though perhaps not yet ready, and bound that it
	// may be asked for it.
	cut, bound bool
	deleting   bool
	failure    string
	// ahead says that the object is of the future: a clock was wrong when it was made.
	ahead bool
	// claimGone says that its claim is not there any more, and another that it was taken
	// when another claim had the name: see lookUpClaims.
	claimGone, another bool
}

// shotOf reads a snapshot. What a driver says about when a snapshot was taken
// counts only between the making of its object and now: a driver may know
// nothing, which comes out as 1970, or have a wrong clock, by which its snapshot would
// be the newest for as long as that is ahead. A snapshot that was retried for hours is
// younger than its object.
func shotOf(v *snapshotv1.VolumeSnapshot, at clocks) *shot {
	s := &shot{
		name: v.Name, version: v.ResourceVersion, uid: v.UID, claim: types.UID(v.Labels[claimLabel]),
		claimName: ptr.Deref(v.Spec.Source.PersistentVolumeClaimName, ""), run: v.Annotations[runAnnotation], runID: v.Annotations[runIDAnnotation],
		created: v.CreationTimestamp.UTC(), deleting: v.DeletionTimestamp != nil,
	}
	s.taken, s.ahead = s.created, s.created.After(at.stamps().Add(skew))
	status := v.Status
	if status == nil {
		return s
	}
	s.ready, s.bound = ptr.Deref(status.ReadyToUse, false), status.BoundVolumeSnapshotContentName != nil
	if t := status.CreationTime; t != nil {
		s.cut = true
		if now := at.later(); !t.After(now.Add(skew)) {
			s.taken = latter(s.created, earlier(t.UTC(), now))
		}
	}
	if status.Error != nil && !s.ready {
		s.failure = cmp.Or(ptr.Deref(status.Error.Message, ""), "the snapshot reports an error without a message")
	}
	return s
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// byClaim sorts snapshots into those of each claim, newest first.
func byClaim(all []*shot) map[types.UID][]*shot {
	claims := map[types.UID][]*shot{}
	for _, s := range all {
		claims[s.claim] = append(claims[s.claim], s)
	}
	for _, shots := range claims {
		slices.SortFunc(shots, newestFirst)
	}
	return claims
}

// newestFirst sorts snapshots by when they were taken; last are those of which that is
// not known.
func newestFirst(a, b *shot) int {
	return cmp.Or(compare(a.ahead, b.ahead), b.taken.Compare(a.taken), b.created.Compare(a.created), cmp.Compare(b.name, a.name))
}

func compare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// newestReady is the newest snapshot to restore from, nil if there is none.
func newestReady(newestFirst []*shot) *shot {
	for _, s := range newestFirst {
		if s.good() {
			return s
		}
	}
	return nil
}

// good tells whether there will still be something to restore from tomorrow.
func (s *shot) good() bool { return s.ready && !s.deleting }

// underWay tells whether a snapshot may become ready. One of the future is not waited
// for: that could take as long as a clock was ahead.
func (s *shot) underWay() bool { return !s.ready && !s.deleting && !s.ahead && !s.hopeless() }

// hopeless tells whether a snapshot can never be taken: its claim is gone, and the driver
// was not asked before.
func (s *shot) hopeless() bool { return s.claimGone && !s.ready && !s.cut && !s.bound }

// doubtful tells whether a snapshot may not be what it is labelled as, or of when it
// says. The others are not removed for its sake, and it is for nobody but a user to
// remove.
func (s *shot) doubtful() bool { return s.ahead || s.another }

// lookUpClaims notes on snapshots what has become of their claims, which are found by
// name. A claim that has the name now and another UID was created after the other was
// gone: what was taken since is of that one.
func lookUpClaims(shots []*shot, byName map[string]*corev1.PersistentVolumeClaim) {
	for _, s := range shots {
		if s.claim == "" || s.claimName == "" {
			continue
		}
		claim := byName[s.claimName]
		s.claimGone = claim == nil || claim.UID != s.claim
		s.another = s.claimGone && claim != nil && (s.cut || s.ready) && !s.taken.Before(claim.CreationTimestamp.Time)
	}
}
