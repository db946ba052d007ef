package groupsnapshot

import (
	"encoding/json"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-io/holdfast/internal/snapshot/sidecar"
)

// answer is the response of a driver that does not report when the snapshot of log was taken.
func answer(ready ...bool) *csipb.VolumeGroupSnapshot {
	return &csipb.VolumeGroupSnapshot{
		GroupSnapshotId: "g", ReadyToUse: true, CreationTime: &timestamppb.Timestamp{Seconds: 7},
		Snapshots: []*csipb.Snapshot{
			{SnapshotId: "s-log", SourceVolumeId: "log", ReadyToUse: ready[0]},
			{SnapshotId: "s-data", SourceVolumeId: "data", ReadyToUse: ready[1], SizeBytes: 5, CreationTime: &timestamppb.Timestamp{Seconds: 6}},
		},
	}
}

func TestAGroupIsReadyWhenAllMembersAre(t *testing.T) {
	for _, ready := range [][]bool{{true, true}, {true, false}, {false, true}} {
		if got := snapshotOf(answer(ready...)); got.Ready != (ready[0] && ready[1]) {
			t.Errorf("with members %v it is %t", ready, got.Ready)
		}
	}
}

// Reading a written status gives the same state, so it is not written again.
func TestStatusHasTheDriversResponse(t *testing.T) {
	content := &groupv1.VolumeGroupSnapshotContent{}
	c := ContentKind{}.Read(content)
	made := snapshotOf(answer(false, true))
	text, err := json.Marshal(ContentKind{}.StatusPatch(&c, made))
	if err != nil {
		t.Fatal(err)
	}
	content.Status = &groupv1.VolumeGroupSnapshotContentStatus{}
	if err := json.Unmarshal(text, content.Status); err != nil {
		t.Fatal(err)
	}
	got := ContentKind{}.Read(content)
	want := sidecar.Content{
		Object: content, HasStatus: true, Handle: "g", Created: int64(7 * time.Second),
		Members: []sidecar.Member{
			{Volume: "data", Handle: "s-data", Ready: true, Created: int64(6 * time.Second), Size: 5},
			{Volume: "log", Handle: "s-log", Created: int64(7 * time.Second)},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStatusPatchKeepsHandleAndTime(t *testing.T) {
	content := &groupv1.VolumeGroupSnapshotContent{Status: &groupv1.VolumeGroupSnapshotContentStatus{
		VolumeGroupSnapshotHandle: ptr.To("g"), CreationTime: ptr.To(metav1.NewTime(time.Unix(3, 0))),
		VolumeSnapshotInfoList: []groupv1.VolumeSnapshotInfo{{VolumeHandle: "data", SnapshotHandle: "s-data", CreationTime: ptr.To[int64](4)}},
	}}
	c := ContentKind{}.Read(content)
	status := ContentKind{}.StatusPatch(&c, snapshotOf(answer(true, true)))
	if status["volumeGroupSnapshotHandle"] != nil || status["creationTime"] != nil || status["readyToUse"] != true {
		t.Errorf("the status becomes %v", status)
	}
	list, ok := status["volumeSnapshotInfoList"].([]groupv1.VolumeSnapshotInfo)
	if !ok || *list[0].CreationTime != 4 || !*list[0].ReadyToUse {
		t.Errorf("the members become %+v", list)
	}
}

// A request to get or delete a group has all members: those in the status, else those in the
// spec of a pre-provisioned group.
func TestMemberHandles(t *testing.T) {
	content := &groupv1.VolumeGroupSnapshotContent{}
	content.Spec.Source.GroupSnapshotHandles = &groupv1.GroupSnapshotHandles{VolumeGroupSnapshotHandle: "g", VolumeSnapshotHandles: []string{"given"}}
	c := ContentKind{}.Read(content)
	if diff := cmp.Diff([]string{"given"}, memberHandles(&c)); diff != "" || c.PreProvisioned != "g" {
		t.Error(diff, c.PreProvisioned)
	}
	content.Status = &groupv1.VolumeGroupSnapshotContentStatus{VolumeSnapshotInfoList: []groupv1.VolumeSnapshotInfo{{SnapshotHandle: "told"}}}
	c = ContentKind{}.Read(content)
	if diff := cmp.Diff([]string{"told"}, memberHandles(&c)); diff != "" {
		t.Error(diff)
	}
}

func TestBestVersion(t *testing.T) {
	for name, tt := range map[string]struct {
		served []string
		want   string
	}{
		"v1 is the best":                     {[]string{"v1beta1", "v1beta2", "v1"}, "v1"},
		"v1beta2 is as good where v1 is not": {[]string{"v1beta1", "v1beta2"}, "v1beta2"},
		"for v1beta1 alone v1 is waited for": {[]string{"v1beta1"}, "v1"},
	} {
		t.Run(name, func(t *testing.T) {
			var served []metav1.GroupVersionForDiscovery
			for _, v := range tt.served {
				served = append(served, metav1.GroupVersionForDiscovery{Version: v})
			}
			if got := bestVersion(served); got != tt.want {
				t.Errorf("got %s", got)
			}
		})
	}
}

// Whoever watches events looks for upstream's reasons.
func TestReasonsAreUpstreams(t *testing.T) {
	want := sidecar.Reasons{Create: "GroupSnapshotCreationFailed", Check: "GroupSnapshotContentCheckandUpdateFailed", Delete: "GroupSnapshotDeleteError"}
	if diff := cmp.Diff(want, ContentKind{}.Reasons()); diff != "" {
		t.Error(diff)
	}
}
