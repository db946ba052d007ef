package snapshot

import (
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestThatNobodyBeginsIsToldAfterAWhile(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: "c", CreationTimestamp: metav1.NewTime(now.Add(-d))}
	}
	tests := map[string]struct {
		user, content time.Duration // how long they are there
		left          time.Duration // 0 if it is told
	}{
		"the driver's half has half a minute": {time.Minute, 10 * time.Second, 20 * time.Second},
		"then it is told":                     {time.Minute, 30 * time.Second, 0},
		"also much later":                     {time.Hour, time.Hour, 0},
		"a content that was there before waits for who wants it":     {10 * time.Second, time.Hour, 20 * time.Second},
		"and who wanted it before it was there for the content":      {time.Hour, 0, 30 * time.Second},
		"a clock that runs behind the API server's makes it no less": {0, -time.Second, 31 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := SidecarWait{Reason: "R", ContentKind: "VolumeSnapshotContent", Needs: ", or two"}
			told, left := v.Check(&snapshotv1.VolumeSnapshot{ObjectMeta: ago(tt.user)}, &snapshotv1.VolumeSnapshotContent{ObjectMeta: ago(tt.content)}, "d", now)
			if left != tt.left || (told == nil) != (tt.left > 0) {
				t.Fatalf("got %v, and %v are left", told, left)
			}
			if told != nil && told.Text != "no csi-snapshotter of driver d has begun with VolumeSnapshotContent c: is one running, or two?" {
				t.Errorf("it says %q", told.Text)
			}
		})
	}
}
