package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/snapshot"
	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

const driver = "csi.example.com"

// A scene is one group with the objects around it.
type scene struct {
	group    *groupv1.VolumeGroupSnapshot
	content  *groupv1.VolumeGroupSnapshotContent
	class    *groupv1.VolumeGroupSnapshotClass
	defaults []string
	sources  []snapshot.Source
	nodes    []string
	restores []string
	restored []string
}

// observed is the observed state of the scene.
func (s *scene) observed() *snapshotcontroller.Observed {
	it := &snapshotcontroller.Observed{DefaultClasses: s.defaults, Nodes: s.nodes, Sources: s.sources, DeletionBlocker: deletionBlocker(s.restores, s.restored)}
	if s.group != nil {
		it.Snapshot = kind().ReadSnapshot(s.group)
	}
	if s.content != nil {
		it.Content = kind().ReadContent(s.content)
	}
	if s.class != nil {
		it.Class = snapshot.GroupClassOf(s.class)
	}
	return it
}

func kind() *groupKind {
	return &groupKind{info: kindInfo(groupv1.SchemeGroupVersion), options: &snapshotcontroller.Options{}}
}

// fresh is a new group of two bound claims, with a class.
func fresh() *scene {
	return &scene{
		group: &groupv1.VolumeGroupSnapshot{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "g", UID: "uid-g"},
			Spec: groupv1.VolumeGroupSnapshotSpec{
				Source:                       groupv1.VolumeGroupSnapshotSource{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "shop"}}},
				VolumeGroupSnapshotClassName: ptr.To("gold"),
			},
		},
		class:   &groupv1.VolumeGroupSnapshotClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Driver: driver, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete},
		sources: []snapshot.Source{source("data"), source("log")},
	}
}

func source(name string) snapshot.Source {
	return snapshot.Source{
		Name: name,
		Claim: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "uid-c"},
			Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv-" + name},
			Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
		},
		Volume: &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv-" + name},
			Spec: corev1.PersistentVolumeSpec{
				ClaimRef:               &corev1.ObjectReference{UID: "uid-c"},
				PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: name}},
			},
		},
	}
}

// Changes of the scene.
func made(s *scene) {
	s.group.Finalizers = []string{snapshot.GroupBoundFinalizer}
	s.content = &groupv1.VolumeGroupSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: "groupsnapcontent-uid-g"},
		Spec: groupv1.VolumeGroupSnapshotContentSpec{
			VolumeGroupSnapshotRef: corev1.ObjectReference{Namespace: "ns", Name: "g", UID: "uid-g"},
			Source:                 groupv1.VolumeGroupSnapshotContentSource{VolumeHandles: []string{"data", "log"}},
			DeletionPolicy:         snapshotv1.VolumeSnapshotContentDelete, Driver: driver,
		},
	}
}

func imported(s *scene) {
	made(s)
	s.group.Spec.Source = groupv1.VolumeGroupSnapshotSource{VolumeGroupSnapshotContentName: ptr.To("c")}
	s.content.Name = "c"
	s.content.Spec.Source = groupv1.VolumeGroupSnapshotContentSource{GroupSnapshotHandles: &groupv1.GroupSnapshotHandles{VolumeGroupSnapshotHandle: "h"}}
}
func unbound(s *scene)  { s.content.Spec.VolumeGroupSnapshotRef.UID = "" }
func anothers(s *scene) { s.content.Spec.VolumeGroupSnapshotRef.UID = "other" }
func lost(s *scene)     { s.content = nil }
func groupTaken(s *scene) {
	s.group.Status = &groupv1.VolumeGroupSnapshotStatus{CreationTime: &metav1.Time{}}
}
func placed(s *scene) {
	s.sources[1].Volume.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{}}
}
func deleted(s *scene) { s.group.DeletionTimestamp = &metav1.Time{} }
func going(s *scene)   { s.content.DeletionTimestamp = &metav1.Time{} }
func permitted(s *scene) {
	metav1.SetMetaDataAnnotation(&s.content.ObjectMeta, snapshot.Group.BeingDeleted, snapshot.Yes)
}
func retain(s *scene)    { s.content.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentRetain }
func gone(s *scene)      { *s = scene{} }
func classless(s *scene) { s.group.Spec.VolumeGroupSnapshotClassName, s.class = nil, nil }

func TestDecide(t *testing.T) {
	on := func(changes ...func(*scene)) []func(*scene) { return changes }
	change := func(c func(*scene)) func(*scene) { return c }
	tests := map[string]struct {
		changes     []func(*scene)
		distributed bool
		want        snapshotcontroller.Action
		says        string
	}{
		"a group of bound claims of one driver gets a content": {nil, false, snapshotcontroller.Create, ""},
		"a selector that matches no claim is reported":         {on(func(s *scene) { s.sources = nil }), false, snapshotcontroller.Reject, "(app=shop)"},
		"an invalid selector is rejected": {on(func(s *scene) {
			s.group.Spec.Source.Selector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}
		}), false, snapshotcontroller.Reject, "is invalid"},
		"a group without a selector and a content is rejected": {on(func(s *scene) { s.group.Spec.Source.Selector = nil }), false, snapshotcontroller.Reject, "neither a selector"},
		"one unusable claim rejects the group":                 {on(func(s *scene) { s.sources[1].Claim.Spec.VolumeName = "" }), false, snapshotcontroller.Reject, "claim log has no volume yet"},
		"every unusable claim is reported": {on(func(s *scene) { s.sources[0].Volume = nil; s.sources[1].Claim.Status.Phase = corev1.ClaimLost }), false, snapshotcontroller.Reject,
			"PersistentVolume pv-data of claim data does not exist; claim log has no volume yet"},
		"a claim that is being deleted rejects the group": {on(func(s *scene) { s.sources[0].Claim.DeletionTimestamp = &metav1.Time{} }), false, snapshotcontroller.Reject, "claim data is being deleted"},
		"volumes of two drivers are rejected":             {on(func(s *scene) { s.sources[1].Volume.Spec.CSI.Driver = "other" }), false, snapshotcontroller.Reject, "different drivers (csi.example.com, other)"},
		"a class that does not exist is waited for":       {on(func(s *scene) { s.class = nil }), false, snapshotcontroller.Reject, "VolumeGroupSnapshotClass gold does not exist"},
		"a class of another driver is rejected":           {on(func(s *scene) { s.class.Driver = "other" }), false, snapshotcontroller.Reject, "is of driver other"},
		"without a class there must be a default":         {on(classless), false, snapshotcontroller.Reject, "groupsnapshot.storage.kubernetes.io/is-default-class=true"},
		"two defaults are rejected":                       {on(classless, change(func(s *scene) { s.defaults = []string{"a", "b"} })), false, snapshotcontroller.Reject, "2 default snapshot classes (a, b)"},
		"one default is used":                             {on(change(func(s *scene) { s.group.Spec.VolumeGroupSnapshotClassName, s.defaults = nil, []string{"gold"} })), false, snapshotcontroller.Create, ""},
		"volumes on one node get the label of the node":   {on(placed, func(s *scene) { s.nodes = []string{"a"} }), true, snapshotcontroller.Create, ""},
		"volumes on different nodes are rejected":         {on(placed), true, snapshotcontroller.Reject, "no node can use all of the volumes pv-data, pv-log"},
		"volumes that every node can use get no label":    {nil, true, snapshotcontroller.Create, ""},

		"the status of the group's content is copied":                         {on(made), false, snapshotcontroller.SyncStatus, ""},
		"a content of that name that is bound to another group is rejected":   {on(made, anothers), false, snapshotcontroller.Reject, "bound to another group snapshot"},
		"a pre-provisioned content of that name is rejected":                  {on(imported, func(s *scene) { s.group.Spec.Source.VolumeGroupSnapshotContentName = nil }), false, snapshotcontroller.Reject, "but it is pre-provisioned"},
		"a taken group whose content is gone is not taken again":              {on(made, groupTaken, lost), false, snapshotcontroller.Reject, "is gone, so the group snapshot cannot be used"},
		"a group whose content is gone before it is taken gets a new content": {on(made, lost), false, snapshotcontroller.Create, ""},

		"a pre-provisioned content that does not exist is waited for":   {on(imported, lost), false, snapshotcontroller.Reject, "VolumeGroupSnapshotContent c does not exist"},
		"an unbound pre-provisioned content is bound":                   {on(imported, unbound), false, snapshotcontroller.Bind, ""},
		"a pre-provisioned content that is being deleted is rejected":   {on(imported, unbound, going), false, snapshotcontroller.Reject, "is being deleted"},
		"the status of a bound content that is being deleted is copied": {on(imported, going), false, snapshotcontroller.SyncStatus, ""},
		"a pre-provisioned content of another group is rejected":        {on(imported, anothers), false, snapshotcontroller.Reject, `with uid "other"`},
		"a content created from volumes is rejected":                    {on(made, func(s *scene) { s.group.Spec.Source.VolumeGroupSnapshotContentName = &s.content.Name }), false, snapshotcontroller.Reject, "created from volumes"},

		"the content of a deleted group is deleted":                         {on(made, deleted), false, snapshotcontroller.DeleteContent, ""},
		"a retained content gets the annotation":                            {on(made, deleted, retain), false, snapshotcontroller.DeleteContent, ""},
		"then the csi-snapshotter deletes the group snapshot at the driver": {on(made, deleted, permitted, going), false, snapshotcontroller.AwaitContentDeletion, ""},
		"the content is deleted if it only has the annotation yet":          {on(made, deleted, permitted), false, snapshotcontroller.DeleteContent, ""},
		"a retained content is not waited for":                              {on(made, deleted, permitted, retain), false, snapshotcontroller.RemoveFinalizers, ""},
		"without a content the finalizer is removed":                        {on(made, deleted, lost), false, snapshotcontroller.RemoveFinalizers, ""},
		"a content of another group does not matter":                        {on(made, deleted, anothers), false, snapshotcontroller.RemoveFinalizers, ""},
		"a deleted group without our finalizer is ignored":                  {on(deleted), false, snapshotcontroller.None, ""},
		"a pending claim that restores a member delays the deletion":        {on(made, deleted, func(s *scene) { s.restores = []string{"ns/new"} }), false, snapshotcontroller.ReportBlocker, "claim ns/new waits"},
		"a group that is gone is ignored":                                   {on(gone), false, snapshotcontroller.None, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			for _, c := range tt.changes {
				c(s)
			}
			got := snapshotcontroller.Decide(kind(), &snapshotcontroller.Options{Distributed: tt.distributed}, s.observed())
			if got.Action != tt.want {
				t.Errorf("got %d, want %d (%v)", got.Action, tt.want, got.Problem)
			}
			if (got.Problem != nil) != (tt.says != "") || got.Problem != nil && !strings.Contains(got.Problem.Text, tt.says) {
				t.Errorf("it says %v, not %q", got.Problem, tt.says)
			}
		})
	}
}

func TestTheStatusOfAGroupIsCopiedFromItsContent(t *testing.T) {
	at, later := metav1.NewTime(time.Unix(1, 0)), metav1.NewTime(time.Unix(2, 0))
	failure := snapshot.StatusError("full", time.Unix(1, 0))
	ready := &groupv1.VolumeGroupSnapshotContentStatus{ReadyToUse: ptr.To(true), CreationTime: &at, Error: failure}
	tests := map[string]struct {
		before  *groupv1.VolumeGroupSnapshotStatus
		from    *groupv1.VolumeGroupSnapshotContentStatus
		unready []string
		ready   bool
		at      *metav1.Time
		err     bool
	}{
		"a group whose content has no status is not ready": {nil, nil, nil, false, nil, false},
		"an error is copied":                          {nil, &groupv1.VolumeGroupSnapshotContentStatus{Error: failure}, nil, false, nil, true},
		"an error is removed when the group is ready": {nil, ready, nil, true, &at, false},
		"a group is not ready before its members":     {nil, ready, []string{"a"}, false, &at, true},
		"a ready group stays ready":                   {&groupv1.VolumeGroupSnapshotStatus{ReadyToUse: ptr.To(true)}, ready, []string{"a"}, true, &at, false},
		"the creation time does not change":           {&groupv1.VolumeGroupSnapshotStatus{CreationTime: &later}, ready, nil, true, &later, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			made(s)
			s.group.Status, s.content.Status = tt.before, tt.from
			it := s.observed()
			got := asGroup(kind().WithContentStatus(it.Snapshot, it.Content, tt.unready).Object).Status
			if *got.ReadyToUse != tt.ready || !got.CreationTime.Equal(tt.at) || (got.Error != nil) != tt.err || *got.BoundVolumeGroupSnapshotContentName != s.content.Name {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// No value of a member is reset, even if the list of the group's content is older.
func TestOnlyNewValuesAreWrittenToAMember(t *testing.T) {
	known := &snapshotv1.VolumeSnapshotContentStatus{
		SnapshotHandle: ptr.To("h"), VolumeGroupSnapshotHandle: ptr.To("g"), CreationTime: ptr.To[int64](5), RestoreSize: ptr.To[int64](6), ReadyToUse: ptr.To(false),
	}
	readyOne := known.DeepCopy()
	readyOne.ReadyToUse = ptr.To(true)
	tests := map[string]struct {
		now           *snapshotv1.VolumeSnapshotContentStatus
		member, group bool // ready
		want          map[string]any
	}{
		"a new member gets all values":            {nil, false, false, map[string]any{"snapshotHandle": "h", "volumeGroupSnapshotHandle": "g", "creationTime": int64(1), "restoreSize": int64(2), "readyToUse": false}},
		"a member with all values is not written": {known, false, false, map[string]any{}},
		"a member becomes ready":                  {known, true, false, map[string]any{"readyToUse": true}},
		"a member becomes ready with its group":   {known, false, true, map[string]any{"readyToUse": true}},
		"a ready member stays ready":              {readyOne, false, false, map[string]any{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			made(s)
			s.content.Status = &groupv1.VolumeGroupSnapshotContentStatus{VolumeGroupSnapshotHandle: ptr.To("g"), ReadyToUse: &tt.group}
			m := &member{group: s.group, content: s.content, info: &groupv1.VolumeSnapshotInfo{
				SnapshotHandle: "h", VolumeHandle: "v", CreationTime: ptr.To[int64](1), RestoreSize: ptr.To[int64](2), ReadyToUse: &tt.member,
			}}
			if diff := cmp.Diff(tt.want, m.statusPatch(tt.now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAMemberWhoseVolumeIsGoneHasItsContentAsSource(t *testing.T) {
	s := fresh()
	made(s)
	k := kind()
	m := &member{group: s.group, content: s.content, info: &groupv1.VolumeSnapshotInfo{VolumeHandle: "v"}}
	_, content := m.names()
	without := k.newMemberSnapshot(m, nil).Spec.Source
	if ptr.Deref(without.VolumeSnapshotContentName, "") != content || without.PersistentVolumeClaimName != nil {
		t.Errorf("without a volume: %+v", without)
	}
	volume := s.sources[0].Volume
	volume.Spec.ClaimRef.Namespace, volume.Spec.ClaimRef.Name = "ns", "data"
	if of := k.newMemberSnapshot(m, volume); ptr.Deref(of.Spec.Source.PersistentVolumeClaimName, "") != "data" || of.OwnerReferences[0].UID != "uid-g" {
		t.Errorf("with one: %+v", of)
	}
}
