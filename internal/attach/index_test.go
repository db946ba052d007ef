package attach

import (
	"testing"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestUnfinishedOperation(t *testing.T) {
	at := metav1.NewTime(time.Unix(1000, 0))
	tests := map[string]struct {
		attached   bool
		deleted    *metav1.Time
		finalizers []string
		want       string
	}{
		"a new one is to be attached":                                 {want: operationAttach},
		"a recorded one is to be attached":                            {finalizers: []string{finalizer}, want: operationAttach},
		"an attached one has no unfinished operation":                 {attached: true, finalizers: []string{finalizer}},
		"a deleted one is to be detached":                             {attached: true, deleted: &at, finalizers: []string{finalizer}, want: operationDetach},
		"one that is deleted before it is attached is to be detached": {deleted: &at, finalizers: []string{finalizer}, want: operationDetach},
		"one without our finalizer has no unfinished operation":       {attached: true, deleted: &at, finalizers: []string{"other"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := &storagev1.VolumeAttachment{
				ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: tt.deleted, Finalizers: tt.finalizers},
				Status:     storagev1.VolumeAttachmentStatus{Attached: tt.attached},
			}
			if got := options.unfinishedOperation(a); got != tt.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestLongestWait(t *testing.T) {
	now := time.Unix(10000, 0)
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	gone := ago(time.Second)
	toAttach := []storagev1.VolumeAttachment{{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(time.Minute)}}, {ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(time.Second)}}}
	toDetach := []storagev1.VolumeAttachment{{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(time.Hour), DeletionTimestamp: &gone}}}
	if got := longestWait(toAttach, now); got != time.Minute {
		t.Errorf("attach: got %s", got)
	}
	if got := longestWait(toDetach, now); got != time.Second {
		t.Errorf("detach: got %s", got)
	}
	if got := longestWait(nil, now); got != 0 {
		t.Errorf("empty queue: got %s", got)
	}
}
