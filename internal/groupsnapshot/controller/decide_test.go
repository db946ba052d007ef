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

// A scene is all that there is about one group.
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

// seen is the scene as the engine sees it.
func (s *scene) seen() *snapshotcontroller.Observed {
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

func kind() *groupKind { return &groupKind{info: kindInfo(groupv1.SchemeGroupVersion)} }

// fresh is a group of two bound claims, with a class, about which nothing has
// been done yet.
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

// Changes of what is seen.
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
func wasCut(s *scene) {
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
		"bound claims of one driver are cut together":            {nil, false, snapshotcontroller.Create, ""},
		"a selector that finds no claim says what it looked for": {on(func(s *scene) { s.sources = nil }), false, snapshotcontroller.Reject, "(app=shop)"},
		"a selector that cannot be read is the user's mistake": {on(func(s *scene) {
			s.group.Spec.Source.Selector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}
		}), false, snapshotcontroller.Reject, "is invalid"},
		"neither selector nor content is the user's mistake": {on(func(s *scene) { s.group.Spec.Source.Selector = nil }), false, snapshotcontroller.Reject, "neither a selector"},
		"one claim that cannot be cut holds all":             {on(func(s *scene) { s.sources[1].Claim.Spec.VolumeName = "" }), false, snapshotcontroller.Reject, "claim log has no volume yet"},
		"every claim that cannot be cut is named": {on(func(s *scene) { s.sources[0].Volume = nil; s.sources[1].Claim.Status.Phase = corev1.ClaimLost }), false, snapshotcontroller.Reject,
			"PersistentVolume pv-data of claim data is not there; claim log has no volume yet"},
		"a claim that is being deleted is not left out in silence": {on(func(s *scene) { s.sources[0].Claim.DeletionTimestamp = &metav1.Time{} }), false, snapshotcontroller.Reject, "claim data is being deleted"},
		"volumes of two drivers cannot be cut together":            {on(func(s *scene) { s.sources[1].Volume.Spec.CSI.Driver = "other" }), false, snapshotcontroller.Reject, "different drivers (csi.example.com, other)"},
		"a class that is not there is waited for":                  {on(func(s *scene) { s.class = nil }), false, snapshotcontroller.Reject, "VolumeGroupSnapshotClass gold is not there"},
		"a class of another driver is refused":                     {on(func(s *scene) { s.class.Driver = "other" }), false, snapshotcontroller.Reject, "is of driver other"},
		"without a class there must be a default":                  {on(classless), false, snapshotcontroller.Reject, "groupsnapshot.storage.kubernetes.io/is-default-class=true"},
		"two defaults are one too many":                            {on(classless, change(func(s *scene) { s.defaults = []string{"a", "b"} })), false, snapshotcontroller.Reject, "2 default snapshot classes (a, b)"},
		"one default is the class":                                 {on(change(func(s *scene) { s.group.Spec.VolumeGroupSnapshotClassName, s.defaults = nil, []string{"gold"} })), false, snapshotcontroller.Create, ""},
		"volumes on one node are its driver's":                     {on(placed, func(s *scene) { s.nodes = []string{"a"} }), true, snapshotcontroller.Create, ""},
		"volumes on different nodes have no driver in common":      {on(placed), true, snapshotcontroller.Reject, "no node can use all of the volumes pv-data, pv-log"},
		"volumes that can be used everywhere are any driver's":     {nil, true, snapshotcontroller.Create, ""},

		"a content of the group's own is followed":                      {on(made), false, snapshotcontroller.SyncStatus, ""},
		"one of its name that is another group's is not":                {on(made, anothers), false, snapshotcontroller.Reject, "bound to another group snapshot"},
		"nor one that was imported":                                     {on(imported, func(s *scene) { s.group.Spec.Source.VolumeGroupSnapshotContentName = nil }), false, snapshotcontroller.Reject, "but it is pre-provisioned"},
		"a group whose content was lost after the cut is not cut again": {on(made, wasCut, lost), false, snapshotcontroller.Reject, "is gone, so the group snapshot cannot be used"},
		"one whose content was lost before is made again":               {on(made, lost), false, snapshotcontroller.Create, ""},

		"a named content is waited for":                   {on(imported, lost), false, snapshotcontroller.Reject, "VolumeGroupSnapshotContent c is not there"},
		"a free one is adopted":                           {on(imported, unbound), false, snapshotcontroller.Bind, ""},
		"one that goes is not":                            {on(imported, unbound, going), false, snapshotcontroller.Reject, "is being deleted"},
		"the group's own is followed, also while it goes": {on(imported, going), false, snapshotcontroller.SyncStatus, ""},
		"one of another group is refused":                 {on(imported, anothers), false, snapshotcontroller.Reject, `with uid "other"`},
		"one that is made from volumes is refused":        {on(made, func(s *scene) { s.group.Spec.Source.VolumeGroupSnapshotContentName = &s.content.Name }), false, snapshotcontroller.Reject, "created from volumes"},

		"a deleted group gives its content free":    {on(made, deleted), false, snapshotcontroller.DeleteContent, ""},
		"also one that is kept":                     {on(made, deleted, retain), false, snapshotcontroller.DeleteContent, ""},
		"then it waits for the driver":              {on(made, deleted, permitted, going), false, snapshotcontroller.None, ""},
		"if the deletion was not sent, it is":       {on(made, deleted, permitted), false, snapshotcontroller.DeleteContent, ""},
		"a kept content is not waited for":          {on(made, deleted, permitted, retain), false, snapshotcontroller.RemoveFinalizers, ""},
		"without its content it goes":               {on(made, deleted, lost), false, snapshotcontroller.RemoveFinalizers, ""},
		"another group's content does not hold it":  {on(made, deleted, anothers), false, snapshotcontroller.RemoveFinalizers, ""},
		"a group that nobody holds is left to go":   {on(deleted), false, snapshotcontroller.None, ""},
		"a restore of a member holds it":            {on(made, deleted, func(s *scene) { s.restores = []string{"ns/new"} }), false, snapshotcontroller.ReportBlocker, "claim ns/new waits"},
		"a group that is gone is nobody's business": {on(gone), false, snapshotcontroller.None, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			for _, c := range tt.changes {
				c(s)
			}
			got := snapshotcontroller.Decide(kind(), &snapshotcontroller.Options{Distributed: tt.distributed}, s.seen())
			if got.Action != tt.want {
				t.Errorf("got %d, want %d (%v)", got.Action, tt.want, got.Problem)
			}
			if (got.Problem != nil) != (tt.says != "") || got.Problem != nil && !strings.Contains(got.Problem.Text, tt.says) {
				t.Errorf("it says %v, not %q", got.Problem, tt.says)
			}
		})
	}
}

func TestAGroupFollowsItsContent(t *testing.T) {
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
		"one that nobody has looked at is not ready": {nil, nil, nil, false, nil, false},
		"an error is handed on":                      {nil, &groupv1.VolumeGroupSnapshotContentStatus{Error: failure}, nil, false, nil, true},
		"and taken back when it is ready":            {nil, ready, nil, true, &at, false},
		"it waits for its members":                   {nil, ready, []string{"a"}, false, &at, true},
		"it stays ready whatever becomes of them":    {&groupv1.VolumeGroupSnapshotStatus{ReadyToUse: ptr.To(true)}, ready, []string{"a"}, true, &at, false},
		"when it was cut is said once":               {&groupv1.VolumeGroupSnapshotStatus{CreationTime: &later}, ready, nil, true, &later, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			made(s)
			s.group.Status, s.content.Status = tt.before, tt.from
			it := s.seen()
			got := asGroup(kind().WithContentStatus(it.Snapshot, it.Content, tt.unready).Object).Status
			if *got.ReadyToUse != tt.ready || !got.CreationTime.Equal(tt.at) || (got.Error != nil) != tt.err || *got.BoundVolumeGroupSnapshotContentName != s.content.Name {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// Nothing of a member goes back, whatever the list says that was made first.
func TestAMemberIsToldOnlyWhatIsNews(t *testing.T) {
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
		"a new one is told all":                {nil, false, false, map[string]any{"snapshotHandle": "h", "volumeGroupSnapshotHandle": "g", "creationTime": int64(1), "restoreSize": int64(2), "readyToUse": false}},
		"one that is told is left alone":       {known, false, false, map[string]any{}},
		"it becomes ready alone":               {known, true, false, map[string]any{"readyToUse": true}},
		"and with its group":                   {known, false, true, map[string]any{"readyToUse": true}},
		"one that is ready does not fall back": {readyOne, false, false, map[string]any{}},
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
