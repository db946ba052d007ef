package sidecar

import (
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

func TestOrphans(t *testing.T) {
	now := time.Unix(100000, 0)
	content := func(change func(*snapshotv1.VolumeSnapshotContent)) []snapshotv1.VolumeSnapshotContent {
		c := snapshotv1.VolumeSnapshotContent{Spec: snapshotv1.VolumeSnapshotContentSpec{Driver: "d"}}
		change(&c)
		return []snapshotv1.VolumeSnapshotContent{c}
	}
	tests := map[string]struct {
		contents []snapshotv1.VolumeSnapshotContent
		age      time.Duration // negative if the driver does not say
		want     bool
	}{
		"a snapshot without a content": {nil, 2 * time.Hour, true},
		"a snapshot that is too young": {nil, time.Minute, false},
		"a snapshot of unknown age":    {nil, -1, true},
		"a snapshot of a content": {content(func(c *snapshotv1.VolumeSnapshotContent) {
			c.Status = &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: ptr.To("s")}
		}), 2 * time.Hour, false},
		"a pre-provisioned snapshot": {content(func(c *snapshotv1.VolumeSnapshotContent) {
			c.Spec.Source.SnapshotHandle = ptr.To("s")
		}), 2 * time.Hour, false},
		"a snapshot of a volume of which one is being created": {content(func(c *snapshotv1.VolumeSnapshotContent) {
			c.Spec.Source.VolumeHandle = ptr.To("v")
		}), 2 * time.Hour, false},
		"another snapshot of a volume": {content(func(c *snapshotv1.VolumeSnapshotContent) {
			c.Spec.Source.VolumeHandle = ptr.To("v")
			c.Status = &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: ptr.To("other")}
		}), 2 * time.Hour, true},
		"a snapshot with the same handle as one of another driver": {content(func(c *snapshotv1.VolumeSnapshotContent) {
			c.Spec.Driver, c.Spec.Source.SnapshotHandle = "other", ptr.To("s")
		}), 2 * time.Hour, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			k := newKnownSnapshots("d")
			k.add(tt.contents)
			s := &csipb.Snapshot{SnapshotId: "s", SourceVolumeId: "v"}
			if tt.age >= 0 {
				s.CreationTime = timestamppb.New(now.Add(-tt.age))
			}
			got := orphans(map[string]*csipb.Snapshot{"s": s}, k, now.Add(-time.Hour))
			if len(got) > 0 != tt.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestNamedBySnapshotter(t *testing.T) {
	const uid = "01234567-89ab-cdef-0123-456789abcdef"
	whole, short := snapshot.Naming{Prefix: "snapshot", Length: -1}, snapshot.Naming{Prefix: "snapshot", Length: 8}
	for handle, want := range map[string]bool{"pool/snapshot-" + uid + "@x": true, "snapshot-1": false, "snap-" + uid: false, uid: false} {
		if got := whole.Matches(handle); got != want {
			t.Errorf("%s: got %v", handle, got)
		}
	}
	if !short.Matches("1-snapshot-01234567") || short.Matches("snapshot-0123456") {
		t.Error("short names are not recognized")
	}
}
