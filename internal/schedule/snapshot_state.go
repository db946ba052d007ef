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

// A snapshotState is a snapshot as schedules see it.
type snapshotState struct {
	name, resourceVersion string
	uid, claim            types.UID
	claimName             string
	run, runID            string // as in runAnnotation and runIDAnnotation
	createdAt             time.Time
	// takenAt is from when its data are, as far as can be told: see shotOf.
	takenAt time.Time
	ready   bool
	// atDriver says that the driver has it, though perhaps not yet ready, and bound that it
	// may be asked for it.
	atDriver, bound bool
	deleting        bool
	errorMessage    string
	// fromFuture says that the object is of the future: a clock was wrong when it was made.
	fromFuture bool
	// claimGone says that its claim is not there any more, and another that it was taken
	// when another claim had the name: see lookUpClaims.
	claimGone, ofSuccessor bool
}

// snapshotStateOf reads a snapshot. What a driver says about when a snapshot was taken
// counts only between the making of its object and now: a driver may know
// nothing, which comes out as 1970, or have a wrong clock, by which its snapshot would
// be the newest for as long as that is ahead. A snapshot that was retried for hours is
// younger than its object.
func snapshotStateOf(v *snapshotv1.VolumeSnapshot, at clockReadings) *snapshotState {
	s := &snapshotState{
		name: v.Name, resourceVersion: v.ResourceVersion, uid: v.UID, claim: types.UID(v.Labels[claimLabel]),
		claimName: ptr.Deref(v.Spec.Source.PersistentVolumeClaimName, ""), run: v.Annotations[runAnnotation], runID: v.Annotations[runIDAnnotation],
		createdAt: v.CreationTimestamp.UTC(), deleting: v.DeletionTimestamp != nil,
	}
	s.takenAt, s.fromFuture = s.createdAt, s.createdAt.After(at.serverTime().Add(maxClockSkew))
	status := v.Status
	if status == nil {
		return s
	}
	s.ready, s.bound = ptr.Deref(status.ReadyToUse, false), status.BoundVolumeSnapshotContentName != nil
	if t := status.CreationTime; t != nil {
		s.atDriver = true
		if now := at.later(); !t.After(now.Add(maxClockSkew)) {
			s.takenAt = maxTime(s.createdAt, minTime(t.UTC(), now))
		}
	}
	if status.Error != nil && !s.ready {
		s.errorMessage = cmp.Or(ptr.Deref(status.Error.Message, ""), "the snapshot reports an error without a message")
	}
	return s
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// byClaim sorts snapshots into those of each claim, newest first.
func byClaim(all []*snapshotState) map[types.UID][]*snapshotState {
	claims := map[types.UID][]*snapshotState{}
	for _, s := range all {
		claims[s.claim] = append(claims[s.claim], s)
	}
	for _, snapshots := range claims {
		slices.SortFunc(snapshots, compareNewestFirst)
	}
	return claims
}

// compareNewestFirst sorts snapshots by when they were taken; last are those of which that is
// not known.
func compareNewestFirst(a, b *snapshotState) int {
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

// newestReady is the newest snapshot to restore from, nil if there is none.
func newestReady(snapshots []*snapshotState) *snapshotState {
	for _, s := range snapshots {
		if s.isUsable() {
			return s
		}
	}
	return nil
}

// isUsable tells whether there will still be something to restore from tomorrow.
func (s *snapshotState) isUsable() bool { return s.ready && !s.deleting }

// isInProgress tells whether a snapshot may become ready. One of the future is not waited
// for: that could take as long as a clock was ahead.
func (s *snapshotState) isInProgress() bool {
	return !s.ready && !s.deleting && !s.fromFuture && !s.cannotSucceed()
}

// cannotSucceed tells whether a snapshot can never be taken: its claim is gone, and the driver
// was not asked before.
func (s *snapshotState) cannotSucceed() bool {
	return s.claimGone && !s.ready && !s.atDriver && !s.bound
}

// isDoubtful tells whether a snapshot may not be what it is labelled as, or of when it
// says. The others are not removed for its sake, and it is for nobody but a user to
// remove.
func (s *snapshotState) isDoubtful() bool { return s.fromFuture || s.ofSuccessor }

// resolveClaims notes on snapshots what has become of their claims, which are found by
// name. A claim that has the name now and another UID was created after the other was
// gone: what was taken since is of that one.
func resolveClaims(snapshots []*snapshotState, byName map[string]*corev1.PersistentVolumeClaim) {
	for _, s := range snapshots {
		if s.claim == "" || s.claimName == "" {
			continue
		}
		claim := byName[s.claimName]
		s.claimGone = claim == nil || claim.UID != s.claim
		s.ofSuccessor = s.claimGone && claim != nil && (s.atDriver || s.ready) && !s.takenAt.Before(claim.CreationTimestamp.Time)
	}
}
