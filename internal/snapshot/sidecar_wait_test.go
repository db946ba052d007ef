package snapshot

import (
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAMissingSidecarIsReported(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: "c", CreationTimestamp: metav1.NewTime(now.Add(-d))}
	}
	tests := map[string]struct {
		user, content time.Duration // their ages
		left          time.Duration // 0 if a Problem is returned
	}{
		"the sidecar has 30 seconds to start":                       {time.Minute, 10 * time.Second, 20 * time.Second},
		"after 30 seconds it is reported":                           {time.Minute, 30 * time.Second, 0},
		"it is still reported much later":                           {time.Hour, time.Hour, 0},
		"the time of an older content starts with its snapshot":     {10 * time.Second, time.Hour, 20 * time.Second},
		"the time of an older snapshot starts with its content":     {time.Hour, 0, 30 * time.Second},
		"a clock behind the API server's does not shorten the time": {0, -time.Second, 31 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := SidecarWait{Reason: "R", ContentKind: "VolumeSnapshotContent", Needs: ", or two"}
			told, left := v.Check(&snapshotv1.VolumeSnapshot{ObjectMeta: ago(tt.user)}, &snapshotv1.VolumeSnapshotContent{ObjectMeta: ago(tt.content)}, "d", now)
			if left != tt.left || (told == nil) != (tt.left > 0) {
				t.Fatalf("got %v, and %v are left", told, left)
			}
			if told != nil && told.Text != "no csi-snapshotter of driver d has started to work on VolumeSnapshotContent c: is one running, or two?" {
				t.Errorf("it says %q", told.Text)
			}
		})
	}
}
