package controller

import (
	"maps"
	"slices"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

func TestStateAndUnfinishedOperations(t *testing.T) {
	at := metav1.NewTime(time.Unix(1000, 0))
	create, ready, remove := snapshot.OperationCreate, snapshot.OperationReady, snapshot.OperationDelete
	tests := map[string]struct {
		change     func(*snapshotv1.VolumeSnapshot)
		state      string
		unfinished []string
	}{
		"a new snapshot": {func(*snapshotv1.VolumeSnapshot) {}, statePending, []string{create, ready}},
		"a bound snapshot": {func(s *snapshotv1.VolumeSnapshot) {
			s.Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(false)}
		}, statePending, []string{create, ready}},
		"a snapshot that is taken": {func(s *snapshotv1.VolumeSnapshot) {
			s.Status = &snapshotv1.VolumeSnapshotStatus{CreationTime: &at}
		}, stateUploading, []string{ready}},
		"a snapshot with an error": {func(s *snapshotv1.VolumeSnapshot) {
			s.Status = &snapshotv1.VolumeSnapshotStatus{Error: &snapshotv1.VolumeSnapshotError{}}
		}, stateErrored, []string{create, ready}},
		"a ready snapshot": {func(s *snapshotv1.VolumeSnapshot) {
			s.Status = &snapshotv1.VolumeSnapshotStatus{CreationTime: &at, ReadyToUse: ptr.To(true)}
		}, stateReady, nil},
		"a ready snapshot without a creation time": {func(s *snapshotv1.VolumeSnapshot) {
			s.Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true)}
		}, stateReady, nil},
		"a ready snapshot that is being deleted": {func(s *snapshotv1.VolumeSnapshot) {
			s.DeletionTimestamp = &at
			s.Status = &snapshotv1.VolumeSnapshotStatus{CreationTime: &at, ReadyToUse: ptr.To(true)}
		}, stateDeleting, []string{remove}},
		"a new snapshot that is being deleted": {func(s *snapshotv1.VolumeSnapshot) {
			s.DeletionTimestamp = &at
		}, stateDeleting, []string{create, ready, remove}},
		"a pre-provisioned snapshot": {func(s *snapshotv1.VolumeSnapshot) {
			s.Spec.Source.VolumeSnapshotContentName = ptr.To("content")
		}, statePending, []string{ready}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &snapshotv1.VolumeSnapshot{}
			tt.change(s)
			if got := stateOf(s); got != tt.state {
				t.Errorf("it is %s", got)
			}
			if got := unfinished(s); !slices.Equal(got, tt.unfinished) {
				t.Errorf("unfinished are %v", got)
			}
		})
	}
}

func TestSnapshotsAreCounted(t *testing.T) {
	now := time.Unix(10000, 0)
	old := func(d time.Duration) metav1.ObjectMeta {
		return metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(now.Add(-d))}
	}
	gone := metav1.NewTime(now.Add(-time.Minute))
	deleted := &snapshotv1.VolumeSnapshot{ObjectMeta: old(time.Hour), Status: &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true)}}
	deleted.DeletionTimestamp = &gone
	got := newStateCounts(now)
	for _, s := range []*snapshotv1.VolumeSnapshot{{ObjectMeta: old(time.Second)}, {ObjectMeta: old(time.Minute)}, deleted} {
		got.add(s)
	}
	want := map[string]int{statePending: 2, stateUploading: 0, stateErrored: 0, stateReady: 0, stateDeleting: 1}
	if !maps.Equal(got.count, want) || got.operations != 5 {
		t.Errorf("counted are %+v", got)
	}
	if got.oldest[statePending] != time.Minute || got.oldest[stateDeleting] != time.Minute {
		t.Errorf("the oldest are %v", got.oldest)
	}
}

func TestTheNewestSnapshotOfADriver(t *testing.T) {
	content := func(driver, namespace string, at int64, ready bool) *snapshotv1.VolumeSnapshotContent {
		c := &snapshotv1.VolumeSnapshotContent{Status: &snapshotv1.VolumeSnapshotContentStatus{CreationTime: &at, ReadyToUse: &ready}}
		c.Spec.Driver, c.Spec.VolumeSnapshotRef.Namespace = driver, namespace
		return c
	}
	got := newestSnapshots{}
	for _, c := range []*snapshotv1.VolumeSnapshotContent{
		content("a", "ours", 1, true), content("a", "ours", 2, true), content("a", "ours", 3, false), content("a", "theirs", 4, true), {},
	} {
		got.add(c, &Options{Namespaces: []string{"ours"}})
	}
	if !maps.Equal(got, newestSnapshots{"a": 2}) {
		t.Errorf("got %v", got)
	}
}
