package controller

import (
	"strings"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

const driver = "csi.example.com"

// A scene is one snapshot with the objects around it.
type scene struct {
	snapshot *snapshotv1.VolumeSnapshot
	content  *snapshotv1.VolumeSnapshotContent
	class    *snapshotv1.VolumeSnapshotClass
	defaults []string
	claim    *corev1.PersistentVolumeClaim
	volume   *corev1.PersistentVolume
	nodes    []string
	restores []string
	group    string
	stranded bool
}

// observed is the observed state of the scene.
func (s *scene) observed() *Observed {
	k := &singleKind{}
	it := &Observed{DefaultClasses: s.defaults, Nodes: s.nodes, Stranded: s.stranded}
	if s.snapshot == nil {
		return it
	}
	it.Snapshot, it.DeletionBlocker = k.ReadSnapshot(s.snapshot), deletionBlocker(s.snapshot, s.restores, s.group)
	if s.content != nil {
		it.Content = k.ReadContent(s.content)
	}
	if s.class != nil {
		it.Class = snapshot.ClassOf(s.class)
	}
	name := ptr.Deref(s.snapshot.Spec.Source.PersistentVolumeClaimName, "")
	it.Sources = []snapshot.Source{{Name: name, Claim: s.claim, Volume: s.volume}}
	return it
}

// ofClaim is a new snapshot of a bound claim, with a class.
func ofClaim() *scene {
	return &scene{
		snapshot: &snapshotv1.VolumeSnapshot{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s", UID: "uid-s"},
			Spec: snapshotv1.VolumeSnapshotSpec{
				Source:                  snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: ptr.To("data")},
				VolumeSnapshotClassName: ptr.To("gold"),
			},
		},
		class: &snapshotv1.VolumeSnapshotClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Driver: driver, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete},
		claim: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data", UID: "uid-c"},
			Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv"},
			Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
		},
		volume: &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv"},
			Spec: corev1.PersistentVolumeSpec{
				ClaimRef: &corev1.ObjectReference{UID: "uid-c"},
				PersistentVolumeSource: corev1.PersistentVolumeSource{
					CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "vol"},
				},
			},
		},
	}
}

// made is a snapshot with its content.
func made() *scene {
	s := ofClaim()
	s.snapshot.Finalizers = []string{snapshot.AsSourceFinalizer, snapshot.BoundFinalizer}
	s.content = &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: "snapcontent-uid-s"},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: "ns", Name: "s", UID: "uid-s"},
			Source:            snapshotv1.VolumeSnapshotContentSource{VolumeHandle: ptr.To("vol")},
			DeletionPolicy:    snapshotv1.VolumeSnapshotContentDelete, Driver: driver,
		},
	}
	return s
}

// imported is a snapshot that names a pre-provisioned content.
func imported() *scene {
	s := made()
	s.snapshot.Spec = snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: ptr.To("import")}}
	s.class, s.claim, s.volume = nil, nil, nil
	s.content.Name = "import"
	s.content.Spec.Source = snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: ptr.To("handle")}
	s.content.Spec.VolumeSnapshotRef.UID = ""
	return s
}

// going is a snapshot with its content that is being deleted.
func going() *scene {
	s := made()
	s.snapshot.DeletionTimestamp = ptr.To(metav1.Now())
	return s
}

// labelled makes it a snapshot of the claim with a UID.
func labelled(s *scene, uid string) { s.snapshot.Labels = map[string]string{snapshot.ClaimUID: uid} }

func member(s *scene) {
	s.snapshot.OwnerReferences = []metav1.OwnerReference{{APIVersion: "groupsnapshot.storage.k8s.io/v1beta2", Kind: "VolumeGroupSnapshot", Name: "g"}}
}

func TestDecide(t *testing.T) {
	type change = func(*scene)
	tests := map[string]struct {
		from   func() *scene
		change change
		want   Action
		says   string // part of the message
	}{
		"a snapshot of a claim with the UID in the label gets a content": {
			ofClaim, func(s *scene) { labelled(s, "uid-c") }, Create, "",
		},
		"a claim of the same name with another UID than the label is rejected": {
			ofClaim, func(s *scene) { labelled(s, "uid-old") }, Reject, "of the claim with UID uid-old, but claim data now has UID uid-c",
		},
		"such a claim is rejected before it has a volume": {
			ofClaim, func(s *scene) { labelled(s, "uid-old"); s.claim.Spec.VolumeName = "" }, Reject, "delete this VolumeSnapshot, or remove the label",
		},
		"a labelled claim that does not exist is waited for": {
			ofClaim, func(s *scene) { labelled(s, "uid-old"); s.claim = nil }, Reject, "claim data does not exist",
		},
		"a snapshot with a content copies its status, whichever claim has the name": {
			made, func(s *scene) { labelled(s, "uid-old") }, SyncStatus, "",
		},
		"a pre-provisioned content is bound, whatever the label": {
			imported, func(s *scene) { labelled(s, "uid-old") }, Bind, "",
		},

		"a snapshot of a bound claim gets a content":                                 {ofClaim, nil, Create, ""},
		"a snapshot without any source is rejected":                                  {ofClaim, func(s *scene) { s.snapshot.Spec.Source.PersistentVolumeClaimName = nil }, Reject, "neither a claim nor a content"},
		"a claim that does not exist is waited for":                                  {ofClaim, func(s *scene) { s.claim = nil }, Reject, "claim data does not exist"},
		"a claim without a volume is waited for":                                     {ofClaim, func(s *scene) { s.claim.Spec.VolumeName = "" }, Reject, "no volume yet"},
		"a claim that is not bound is waited for":                                    {ofClaim, func(s *scene) { s.claim.Status.Phase = corev1.ClaimPending }, Reject, "no volume yet"},
		"no snapshot is taken of a claim that is being deleted":                      {ofClaim, func(s *scene) { s.claim.DeletionTimestamp = ptr.To(metav1.Now()) }, Reject, "being deleted"},
		"a snapshot is taken of a protected claim that is being deleted":             {ofClaim, func(s *scene) { protectedAndDeleting(s.claim) }, Create, ""},
		"a volume that does not exist is waited for":                                 {ofClaim, func(s *scene) { s.volume = nil }, Reject, "PersistentVolume pv of claim data does not exist"},
		"no snapshot is taken of a volume of another claim":                          {ofClaim, func(s *scene) { s.volume.Spec.ClaimRef.UID = "other" }, Reject, "not bound to claim data"},
		"no snapshot is taken of a volume without a CSI driver":                      {ofClaim, func(s *scene) { s.volume.Spec.CSI = nil }, Reject, "not one of a CSI driver"},
		"a class that does not exist is waited for":                                  {ofClaim, func(s *scene) { s.class = nil }, Reject, "VolumeSnapshotClass gold does not exist"},
		"a class of another driver is rejected":                                      {ofClaim, func(s *scene) { s.class.Driver = "other" }, Reject, "is of driver other, and claim data has a volume of driver " + driver},
		"without a class the driver's default is used":                               {ofClaim, func(s *scene) { s.snapshot.Spec.VolumeSnapshotClassName, s.defaults = nil, []string{"gold"} }, Create, ""},
		"without a class and a default the user is told what to do":                  {ofClaim, func(s *scene) { s.snapshot.Spec.VolumeSnapshotClassName, s.class = nil, nil }, Reject, "has no default"},
		"two defaults are reported":                                                  {ofClaim, func(s *scene) { s.snapshot.Spec.VolumeSnapshotClassName, s.defaults = nil, []string{"a", "b"} }, Reject, "2 default snapshot classes (a, b)"},
		"a member of a group is left to its group":                                   {ofClaim, member, None, ""},
		"a snapshot whose content is gone is not taken a second time":                {ofClaim, func(s *scene) { s.snapshot.Status = taken() }, Reject, "is gone"},
		"the status of a created content is copied":                                  {made, nil, SyncStatus, ""},
		"it is copied without the class":                                             {made, func(s *scene) { s.class = nil }, SyncStatus, ""},
		"a content of that name that is bound to another snapshot is rejected":       {made, func(s *scene) { s.content.Spec.VolumeSnapshotRef.UID = "other" }, Reject, "bound to another snapshot"},
		"a content of that name whose reference has no UID is rejected":              {made, func(s *scene) { s.content.Spec.VolumeSnapshotRef.UID = "" }, Reject, "bound to another snapshot"},
		"a pre-provisioned content of that name is rejected":                         {made, func(s *scene) { s.content.Spec.Source.SnapshotHandle = ptr.To("h") }, Reject, "but it is pre-provisioned"},
		"a pre-provisioned content is bound to the snapshot":                         {imported, nil, Bind, ""},
		"the status of a bound pre-provisioned content is copied":                    {imported, func(s *scene) { s.content.Spec.VolumeSnapshotRef.UID = "uid-s" }, SyncStatus, ""},
		"a pre-provisioned content that does not exist is waited for":                {imported, func(s *scene) { s.content = nil }, Reject, "VolumeSnapshotContent import does not exist"},
		"a pre-provisioned content for another snapshot is rejected":                 {imported, func(s *scene) { s.content.Spec.VolumeSnapshotRef.Name = "other" }, Reject, "bound to another snapshot"},
		"a pre-provisioned content for an earlier snapshot of that name is rejected": {imported, func(s *scene) { s.content.Spec.VolumeSnapshotRef.UID = "old" }, Reject, "bound to another snapshot"},
		"a content created from a volume is not pre-provisioned":                     {imported, func(s *scene) { s.content.Spec.Source = made().content.Spec.Source }, Reject, "created from a volume"},
		"a pre-provisioned content that is being deleted is rejected":                {imported, func(s *scene) { s.content.DeletionTimestamp = ptr.To(metav1.Now()) }, Reject, "being deleted"},
		"the content of a deleted snapshot is deleted":                               {going, nil, DeleteContent, ""},
		"the content is deleted if it only has the annotation yet":                   {going, func(s *scene) { permit(s) }, DeleteContent, ""},
		"then the csi-snapshotter deletes the snapshot at the driver":                {going, func(s *scene) { permit(s); s.content.DeletionTimestamp = ptr.To(metav1.Now()) }, AwaitContentDeletion, ""},
		"the driver's error is reported": {going, func(s *scene) {
			permit(s)
			s.content.DeletionTimestamp = ptr.To(metav1.Now())
			s.content.Status = &snapshotv1.VolumeSnapshotContentStatus{Error: &snapshotv1.VolumeSnapshotError{Message: ptr.To("used by a clone")}}
		}, ReportDeletionError, "cannot be deleted yet: used by a clone"},
		"an error of the creation is not reported as one of the deletion": {going, func(s *scene) {
			permit(s)
			s.content.DeletionTimestamp = ptr.To(metav1.Now())
			s.content.Status = &snapshotv1.VolumeSnapshotContentStatus{Error: &snapshotv1.VolumeSnapshotError{
				Message: ptr.To("no room"), Time: ptr.To(metav1.NewTime(time.Now().Add(-time.Minute))),
			}}
		}, AwaitContentDeletion, ""},
		"a content that others keep is reported with their finalizers": {going, func(s *scene) {
			permit(s)
			s.content.DeletionTimestamp, s.content.Finalizers = ptr.To(metav1.Now()), []string{"backup.example.com/copy"}
		}, ReportBlocker, "kept by the finalizers of others, backup.example.com/copy"},
		"a content that others keep too still waits for the csi-snapshotter": {going, func(s *scene) {
			permit(s)
			s.content.DeletionTimestamp, s.content.Finalizers = ptr.To(metav1.Now()), []string{"backup.example.com/copy", snapshot.Single.Finalizer}
		}, AwaitContentDeletion, ""},
		"a node that is gone is reported with the command to run": {going, stranded, ReportNodeGone, "volumesnapshotcontent snapcontent-uid-s --type=merge -p '{\"spec\":{\"deletionPolicy\":\"Retain\"}}'"},
		"a node that is gone is reported by name":                 {going, stranded, ReportNodeGone, "csi-snapshotter of node gone"},
		"a node that is gone is reported if its csi-snapshotter may have begun": {going, func(s *scene) {
			stranded(s)
			s.content.Status = nil
			s.content.Annotations[snapshot.Single.BeingCreated] = snapshot.Yes
		}, ReportNodeGone, "gone"},
		"a node that is gone does not matter if its csi-snapshotter has not begun": {going, func(s *scene) { stranded(s); s.content.Status = nil }, AwaitContentDeletion, ""},
		"a node that is gone does not matter for a group member":                   {going, func(s *scene) { stranded(s); memberContent(s) }, AwaitContentDeletion, ""},
		"a node that is gone does not matter for a retained content":               {going, func(s *scene) { stranded(s); retain(s) }, RemoveFinalizers, ""},
		"a content that a user deleted first gets the annotation too":              {going, func(s *scene) { s.content.DeletionTimestamp = ptr.To(metav1.Now()) }, DeleteContent, ""},
		"without a content the finalizers are removed":                             {going, func(s *scene) { s.content = nil }, RemoveFinalizers, ""},
		"a content of another snapshot is not deleted":                             {going, func(s *scene) { s.content.Spec.VolumeSnapshotRef.UID = "other" }, RemoveFinalizers, ""},
		"a retained content gets the annotation too":                               {going, retain, DeleteContent, ""},
		"after that the finalizers are removed":                                    {going, func(s *scene) { retain(s); permit(s) }, RemoveFinalizers, ""},
		"the retained content of a member with a handle stays": {going, func(s *scene) {
			retain(s)
			memberContent(s)
			permit(s)
			s.content.Status = &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: ptr.To("h")}
		}, RemoveFinalizers, ""},
		"the content of a member without a handle is deleted":            {going, func(s *scene) { retain(s); memberContent(s); permit(s) }, DeleteContent, ""},
		"a pending claim that restores the snapshot delays its deletion": {going, func(s *scene) { s.restores = []string{"ns/new"} }, ReportBlocker, "ns/new waits"},
		"the finalizer of a provisioner delays its deletion":             {going, restore, ReportBlocker, "a provisioner restores"},
		"the group of a member delays its deletion":                      {going, func(s *scene) { member(s); s.group = "g" }, ReportBlocker, "part of VolumeGroupSnapshot g"},
		"the content of a member whose group is gone is deleted":         {going, member, DeleteContent, ""},
		"a snapshot with foreign finalizers only is ignored":             {going, func(s *scene) { s.snapshot.Finalizers = []string{"velero.io/x"} }, None, ""},
		"a deleted snapshot without our finalizers is ignored":           {ofClaim, func(s *scene) { s.snapshot.DeletionTimestamp = ptr.To(metav1.Now()) }, None, ""},
		"a snapshot that is gone is ignored":                             {ofClaim, func(s *scene) { s.snapshot = nil }, None, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := tt.from()
			if tt.change != nil {
				tt.change(s)
			}
			got := Decide(&singleKind{}, &Options{}, s.observed())
			if got.Action != tt.want {
				t.Fatalf("got %d, want %d (%v)", got.Action, tt.want, got.Problem)
			}
			if said := got.Problem; (said == nil) != (tt.says == "") || said != nil && !strings.Contains(said.Text, tt.says) {
				t.Errorf("it says %v, not %q", said, tt.says)
			}
		})
	}
}

func TestAVolumeThatNoNodeCanUseIsRejected(t *testing.T) {
	s := ofClaim()
	if got := Decide(&singleKind{}, &Options{Distributed: true}, s.observed()); got.Action != Create {
		t.Errorf("a volume that can be used everywhere: %+v", got)
	}
	if draft, err := (&Reconciler{rules: newRules(&singleKind{}, &Options{Distributed: true})}).draftContent(s.observed()); err != nil || len(draft.Meta.Labels) > 0 {
		t.Errorf("its content has the labels %v (%v)", draft.Meta.Labels, err)
	}
	s.volume.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{}}
	if got := Decide(&singleKind{}, &Options{Distributed: true}, s.observed()); got.Action != Reject || !strings.Contains(got.Problem.Text, "no node can use volume pv") {
		t.Errorf("got %+v", got)
	}
	s.nodes = []string{"n"}
	if got := Decide(&singleKind{}, &Options{Distributed: true}, s.observed()); got.Action != Create {
		t.Errorf("got %+v", got)
	}
}

func TestStatusIsCopiedFromTheContent(t *testing.T) {
	at := time.Date(2026, 11, 22, 1, 2, 3, 4, time.UTC)
	failed := &snapshotv1.VolumeSnapshotError{Message: ptr.To("no room")}
	tests := map[string]struct {
		before *snapshotv1.VolumeSnapshotStatus
		from   *snapshotv1.VolumeSnapshotContentStatus
		check  func(*snapshotv1.VolumeSnapshotStatus) bool
	}{
		"before it is taken it is bound and not ready": {nil, nil, func(s *snapshotv1.VolumeSnapshotStatus) bool {
			return *s.BoundVolumeSnapshotContentName == "snapcontent-uid-s" && !*s.ReadyToUse && s.CreationTime == nil
		}},
		"it has the time when it was taken": {nil, &snapshotv1.VolumeSnapshotContentStatus{CreationTime: ptr.To(at.UnixNano())}, func(s *snapshotv1.VolumeSnapshotStatus) bool {
			return s.CreationTime.Equal(ptr.To(metav1.NewTime(at.Truncate(time.Second)))) && !*s.ReadyToUse
		}},
		"a time of zero is ignored": {nil, &snapshotv1.VolumeSnapshotContentStatus{CreationTime: ptr.To[int64](0)}, func(s *snapshotv1.VolumeSnapshotStatus) bool { return s.CreationTime == nil }},
		"the time does not change": {taken(), &snapshotv1.VolumeSnapshotContentStatus{CreationTime: ptr.To(at.UnixNano())}, func(s *snapshotv1.VolumeSnapshotStatus) bool {
			return s.CreationTime.Unix() == 1
		}},
		"an error is copied": {nil, &snapshotv1.VolumeSnapshotContentStatus{Error: failed}, func(s *snapshotv1.VolumeSnapshotStatus) bool { return s.Error == failed }},
		"an error is removed with that of the content": {&snapshotv1.VolumeSnapshotStatus{Error: failed}, &snapshotv1.VolumeSnapshotContentStatus{}, func(s *snapshotv1.VolumeSnapshotStatus) bool {
			return s.Error == nil
		}},
		"a ready snapshot has no error": {nil, &snapshotv1.VolumeSnapshotContentStatus{ReadyToUse: ptr.To(true), Error: failed}, func(s *snapshotv1.VolumeSnapshotStatus) bool {
			return *s.ReadyToUse && s.Error == nil
		}},
		"a size that is known later is copied": {taken(), &snapshotv1.VolumeSnapshotContentStatus{RestoreSize: ptr.To[int64](1 << 30)}, func(s *snapshotv1.VolumeSnapshotStatus) bool {
			return s.RestoreSize.String() == "1Gi"
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := made()
			s.snapshot.Status, s.content.Status = tt.before, tt.from
			it := s.observed()
			got := asSnapshot((&singleKind{}).WithContentStatus(it.Snapshot, it.Content, nil).Object).Status
			if !tt.check(got) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestAClaimIsNeededUntilTheSnapshotIsTaken(t *testing.T) {
	s := made().snapshot
	if !needsClaim(s) {
		t.Error("the claim is not needed before the snapshot is taken")
	}
	s.Status = taken()
	if needsClaim(s) {
		t.Error("the claim is needed after the snapshot is taken: it should not wait for the upload")
	}
	s = ofClaim().snapshot
	if needsClaim(s) {
		t.Error("the claim is needed for a snapshot without finalizers")
	}
}

func TestSnapshotSourcesReadsBothFields(t *testing.T) {
	group := ptr.To(snapshotv1.GroupName)
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}}
	for name, tt := range map[string]struct {
		old  *corev1.TypedLocalObjectReference
		new  *corev1.TypedObjectReference
		want string
	}{
		"the old field":                     {old: &corev1.TypedLocalObjectReference{APIGroup: group, Kind: "VolumeSnapshot", Name: "s"}, want: "s"},
		"the new field":                     {new: &corev1.TypedObjectReference{APIGroup: group, Kind: "VolumeSnapshot", Name: "s"}, want: "s"},
		"the new field, with its namespace": {new: &corev1.TypedObjectReference{APIGroup: group, Kind: "VolumeSnapshot", Name: "s", Namespace: ptr.To("ns")}, want: "s"},
		"the new field, other namespace":    {new: &corev1.TypedObjectReference{APIGroup: group, Kind: "VolumeSnapshot", Name: "s", Namespace: ptr.To("other")}},
		"both, as the API server does": {old: &corev1.TypedLocalObjectReference{APIGroup: group, Kind: "VolumeSnapshot", Name: "s"},
			new: &corev1.TypedObjectReference{APIGroup: group, Kind: "VolumeSnapshot", Name: "s"}, want: "s"},
		"another kind":                {old: &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "s"}},
		"a kind of that name without": {old: &corev1.TypedLocalObjectReference{Kind: "VolumeSnapshot", Name: "s"}},
	} {
		claim.Spec.DataSource, claim.Spec.DataSourceRef = tt.old, tt.new
		if got := strings.Join(awaitedSnapshots(claim), " "); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
	claim.Status.Phase = corev1.ClaimBound
	if got := awaitedSnapshots(claim); len(got) > 0 {
		t.Errorf("a claim with its volume still waits for %v", got)
	}
}

// The provisioner has the same rule. If the two differed, a claim and a snapshot would
// wait for each other.
func TestWhichClaimsADeletedSnapshotWaitsFor(t *testing.T) {
	deleted := time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC)
	tests := map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   bool
	}{
		"one that was made before":                        {func(*corev1.PersistentVolumeClaim) {}, true},
		"one that was made in the same second":            {func(c *corev1.PersistentVolumeClaim) { c.CreationTimestamp.Time = deleted }, true},
		"one that was made after":                         {func(c *corev1.PersistentVolumeClaim) { c.CreationTimestamp.Time = deleted.Add(time.Second) }, false},
		"one that waits on its way out":                   {func(c *corev1.PersistentVolumeClaim) { c.DeletionTimestamp = ptr.To(metav1.Now()) }, true},
		"one that has its volume":                         {func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimBound }, false},
		"one that has lost its volume":                    {func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimLost }, false},
		"one that is filled from another snapshot":        {func(c *corev1.PersistentVolumeClaim) { c.Spec.DataSource.Name = "other" }, false},
		"one of another namespace":                        {func(c *corev1.PersistentVolumeClaim) { c.Namespace = "foreign" }, false},
		"one of another namespace, which names this one":  {func(c *corev1.PersistentVolumeClaim) { c.Namespace = "foreign"; refer(c, "ns") }, false},
		"one that names its own namespace":                {func(c *corev1.PersistentVolumeClaim) { refer(c, "ns") }, true},
		"one that names the same snapshot somewhere else": {func(c *corev1.PersistentVolumeClaim) { refer(c, "foreign") }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			claim := &corev1.PersistentVolumeClaim{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "restored", CreationTimestamp: metav1.NewTime(deleted.Add(-time.Hour))},
				Spec: corev1.PersistentVolumeClaimSpec{
					DataSource: &corev1.TypedLocalObjectReference{APIGroup: ptr.To(snapshotv1.GroupName), Kind: "VolumeSnapshot", Name: "s"},
				},
				Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
			}
			tt.change(claim)
			if got := isWaitingFor(claim, made().snapshot, &metav1.Time{Time: deleted}); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// refer makes a claim name the snapshot in dataSourceRef, with a namespace.
func refer(c *corev1.PersistentVolumeClaim, namespace string) {
	c.Spec.DataSource = nil
	c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: ptr.To(snapshotv1.GroupName), Kind: "VolumeSnapshot", Name: "s", Namespace: &namespace}
}

func taken() *snapshotv1.VolumeSnapshotStatus {
	return &snapshotv1.VolumeSnapshotStatus{CreationTime: &metav1.Time{Time: time.Unix(1, 0)}}
}

func protectedAndDeleting(claim *corev1.PersistentVolumeClaim) {
	claim.DeletionTimestamp, claim.Finalizers = ptr.To(metav1.Now()), []string{snapshot.ClaimFinalizer}
}

func permit(s *scene) {
	metav1.SetMetaDataAnnotation(&s.content.ObjectMeta, snapshot.Single.BeingDeleted, snapshot.Yes)
}

func memberContent(s *scene) {
	metav1.SetMetaDataAnnotation(&s.content.ObjectMeta, snapshot.GroupHandleAnnotation, "g")
}

func restore(s *scene) {
	s.snapshot.Finalizers = append(s.snapshot.Finalizers, kube.SnapshotSourceFinalizer)
}

// stranded is a snapshot whose node is gone.
func stranded(s *scene) {
	permit(s)
	s.stranded = true
	s.content.Labels = map[string]string{snapshot.ManagedBy: "gone"}
	s.content.DeletionTimestamp = ptr.To(metav1.Now())
	s.content.Status = &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: ptr.To("h")}
}

func retain(s *scene) { s.content.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentRetain }
