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

// A snapshotState is the observed state of a VolumeSnapshot.
type snapshotState struct {
	name, resourceVersion string
	uid, claim            types.UID
	claimName             string
	run, runID            string // as in runAnnotation and runIDAnnotation
	createdAt             time.Time
	// takenAt is when the snapshot was taken, as far as known: see snapshotStateOf.
	takenAt time.Time
	ready   bool
	// atDriver is set if the driver has the snapshot, which may not be ready, and bound if the
	// driver may have been called.
	atDriver, bound bool
	deleting        bool
	errorMessage    string
	// fromFuture is set if the creation timestamp is in the future: a clock was wrong at that
	// time.
	fromFuture bool
	// claimGone is set if the claim does not exist any more, and ofSuccessor if the snapshot
	// was taken when another claim had its name: see resolveClaims.
	claimGone, ofSuccessor bool
}

// snapshotStateOf converts a VolumeSnapshot. A driver's creation time counts only if it is
// between the creation of the object and now. A driver may report none, which is read as 1970,
// or its clock may be ahead, which would make its snapshot the newest for that long. A
// snapshot that was retried for hours is younger than its object.
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

// byClaim groups snapshots by claim, newest first.
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

// compareNewestFirst orders snapshots by when they were taken, newest first. Those with an
// unknown time are last.
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

// newestReady returns the newest usable snapshot, or nil.
func newestReady(snapshots []*snapshotState) *snapshotState {
	for _, s := range snapshots {
		if s.isUsable() {
			return s
		}
	}
	return nil
}

// isUsable reports whether a volume can be restored from the snapshot, also later.
func (s *snapshotState) isUsable() bool { return s.ready && !s.deleting }

// isInProgress reports whether a snapshot may become ready. A snapshot from the future does
// not count: that could last as long as a clock was ahead.
func (s *snapshotState) isInProgress() bool {
	return !s.ready && !s.deleting && !s.fromFuture && !s.cannotSucceed()
}

// cannotSucceed reports whether a snapshot can never be taken: its claim was deleted before
// the driver was called.
func (s *snapshotState) cannotSucceed() bool {
	return s.claimGone && !s.ready && !s.atDriver && !s.bound
}

// isDoubtful reports whether a snapshot's claim or time may be wrong. Such a snapshot is no
// reason to delete others, and only users delete it.
func (s *snapshotState) isDoubtful() bool { return s.fromFuture || s.ofSuccessor }

// resolveClaims finds out what became of the snapshots' claims, by name. A claim with the same
// name and another UID was created after the snapshot's claim was deleted: snapshots taken
// since are of that claim.
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
