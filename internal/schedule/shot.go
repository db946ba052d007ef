package schedule

import (
	"cmp"
	"slices"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// A shot is a snapshot as schedules see it.
type shot struct {
	name, version string
	uid, claim    types.UID
	claimName     string
	run           string // as in runAnnotation
	created       time.Time
	// taken is from when its data are, as far as can be told: see shotOf.
	taken time.Time
	ready bool
	// cut says that the driver has it, though perhaps not yet ready.
	cut      bool
	deleting bool
	failure  string
}

// shotOf reads a snapshot. What a driver says about when a snapshot was taken
// counts only between the making of its object and now: a driver may know
// nothing, which comes out as 1970, or have a wrong clock. A snapshot that was
// retried for hours is younger than its object.
func shotOf(v *snapshotv1.VolumeSnapshot, now time.Time) *shot {
	s := &shot{
		name: v.Name, version: v.ResourceVersion, uid: v.UID, claim: types.UID(v.Labels[claimLabel]),
		claimName: ptr.Deref(v.Spec.Source.PersistentVolumeClaimName, ""), run: v.Annotations[runAnnotation],
		created: v.CreationTimestamp.UTC(), deleting: v.DeletionTimestamp != nil,
	}
	s.taken = s.created
	status := v.Status
	if status == nil {
		return s
	}
	s.ready = ptr.Deref(status.ReadyToUse, false)
	if t := status.CreationTime; t != nil {
		s.cut = true
		s.taken = latter(s.created, earlier(t.UTC(), now))
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

func newestFirst(a, b *shot) int {
	return cmp.Or(b.taken.Compare(a.taken), b.created.Compare(a.created), cmp.Compare(b.name, a.name))
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

// underWay tells whether a snapshot may become ready.
func (s *shot) underWay() bool { return !s.ready && !s.deleting }
