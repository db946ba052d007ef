package controller

import (
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

func TestSnapshotChangesThatWakeIt(t *testing.T) {
	plain := func() *snapshotv1.VolumeSnapshot { return &snapshotv1.VolumeSnapshot{} }
	restored := func() *snapshotv1.VolumeSnapshot {
		s := plain()
		restore(&scene{snapshot: s})
		return s
	}
	failed := func() *snapshotv1.VolumeSnapshot {
		s := plain()
		s.Status = &snapshotv1.VolumeSnapshotStatus{Error: &snapshotv1.VolumeSnapshotError{Message: ptr.To("no room")}}
		return s
	}
	ready := func() *snapshotv1.VolumeSnapshot {
		s := plain()
		s.Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true)}
		return s
	}
	tests := map[string]struct {
		before, now *snapshotv1.VolumeSnapshot
		wakes       bool
	}{
		"the end of a restore, which its deletion may wait for": {restored(), plain(), true},
		"the beginning of a restore":                            {plain(), restored(), false},
		"a new error, whose cause may have ended meanwhile":     {plain(), failed(), true},
		"that it is not ready any more":                         {ready(), plain(), true},
		"any other change of the status":                        {failed(), ready(), false},
		"no change":                                             {failed(), failed(), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.before.ResourceVersion, tt.now.ResourceVersion = "1", "2"
			if got := newRules(&singleKind{}, &Options{}).snapshotChanges().Update(event.UpdateEvent{ObjectOld: tt.before, ObjectNew: tt.now}); got != tt.wakes {
				t.Errorf("got %v", got)
			}
		})
	}
}

// The cache may not show an error that was just written.
func TestStatusPatchRemovesTheError(t *testing.T) {
	status, err := statusPatch(&snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true)})
	if none, said := status["error"]; err != nil || !said || none != nil {
		t.Errorf("the change is %v, %v", status, err)
	}
}
