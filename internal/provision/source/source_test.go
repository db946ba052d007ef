package source

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
)

func TestOf(t *testing.T) {
	tests := map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   *Source
		ours   bool
	}{
		"nothing": {func(*corev1.PersistentVolumeClaim) {}, nil, true},
		"a snapshot": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ptr.To(GroupSnapshot), Kind: KindSnapshot, Name: "s"}
		}, &Source{KindSnapshot, "team", "s"}, true},
		"a claim": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: KindClaim, Name: "c"}
		}, &Source{KindClaim, "team", "c"}, true},
		"a snapshot of another namespace": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: ptr.To(GroupSnapshot), Kind: KindSnapshot, Name: "s", Namespace: ptr.To("other")}
		}, &Source{KindSnapshot, "other", "s"}, true},
		"an empty namespace is the claim's own": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: KindClaim, Name: "c", Namespace: ptr.To("")}
		}, &Source{KindClaim, "team", "c"}, true},
		"dataSource comes before dataSourceRef": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: KindClaim, Name: "one"}
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: KindClaim, Name: "two"}
		}, &Source{KindClaim, "team", "one"}, true},
		"another kind": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: ptr.To("example.com"), Kind: "Backup", Name: "b"}
		}, &Source{"Backup", "team", "b"}, false},
		"a snapshot of another group": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: ptr.To("example.com"), Kind: KindSnapshot, Name: "s"}
		}, &Source{KindSnapshot, "team", "s"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := claim()
			tt.change(c)
			got, ours := Of(c)
			if diff := cmp.Diff(tt.want, got); diff != "" || ours != tt.ours {
				t.Errorf("ours is %v, want %v: %s", ours, tt.ours, diff)
			}
		})
	}
}

// snapshot is one that can be restored to claim.
func snapshot() *Resolved {
	return &Resolved{Source: Source{KindSnapshot, "team", "before"}, Snapshot: &Snapshot{
		Snapshot: &snapshotv1.VolumeSnapshot{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "before", UID: "s"},
			Status: &snapshotv1.VolumeSnapshotStatus{
				BoundVolumeSnapshotContentName: ptr.To("content"), ReadyToUse: ptr.To(true), RestoreSize: ptr.To(resource.MustParse("1Gi")),
			},
		},
		Content: &snapshotv1.VolumeSnapshotContent{
			ObjectMeta: metav1.ObjectMeta{Name: "content", Annotations: map[string]string{}},
			Spec: snapshotv1.VolumeSnapshotContentSpec{
				Driver:            "csitest.holdfast.io",
				VolumeSnapshotRef: corev1.ObjectReference{Namespace: "team", Name: "before", UID: "s"},
				SourceVolumeMode:  ptr.To(corev1.PersistentVolumeFilesystem),
			},
			Status: &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: ptr.To("snap-1")},
		},
	}}
}

func TestRestore(t *testing.T) {
	tests := map[string]struct {
		change func(*Resolved, *corev1.PersistentVolumeClaim, *Rules)
		err    string
	}{
		"a snapshot that is ready": {func(*Resolved, *corev1.PersistentVolumeClaim, *Rules) {}, ""},
		"a larger claim":           {func(_ *Resolved, c *corev1.PersistentVolumeClaim, _ *Rules) { request(c, "2Gi") }, ""},
		"a smaller claim":          {func(_ *Resolved, c *corev1.PersistentVolumeClaim, _ *Rules) { request(c, "1Mi") }, "the claim asks for 1Mi and the snapshot takes 1Gi"},
		"a size that is not known": {func(o *Resolved, _ *corev1.PersistentVolumeClaim, _ *Rules) {
			o.Snapshot.Snapshot.Status.RestoreSize = nil
		}, ""},
		"no such snapshot":                 {func(o *Resolved, _ *corev1.PersistentVolumeClaim, _ *Rules) { o.Snapshot = &Snapshot{} }, "VolumeSnapshot team/before: does not exist"},
		"a snapshot that is being deleted": {func(o *Resolved, c *corev1.PersistentVolumeClaim, _ *Rules) { o.deleteAfter(c, -time.Second) }, "is being deleted"},
		"a snapshot that is being deleted and protected": {func(o *Resolved, c *corev1.PersistentVolumeClaim, _ *Rules) {
			o.deleteAfter(c, -time.Second)
			o.Snapshot.Snapshot.Finalizers = []string{kube.SnapshotSourceFinalizer}
		}, ""},
		"a snapshot that was deleted after the claim was created": {func(o *Resolved, c *corev1.PersistentVolumeClaim, _ *Rules) { o.deleteAfter(c, time.Second) }, ""},
		"a snapshot that was deleted in the same second":          {func(o *Resolved, c *corev1.PersistentVolumeClaim, _ *Rules) { o.deleteAfter(c, 0) }, ""},
		"a snapshot of another namespace that was deleted after the claim was created": {func(o *Resolved, c *corev1.PersistentVolumeClaim, _ *Rules) {
			moveAway(o)
			o.Granted = true
			o.deleteAfter(c, time.Second)
		}, "is being deleted"},
		"no status yet": {func(o *Resolved, _ *corev1.PersistentVolumeClaim, _ *Rules) { o.Snapshot.Snapshot.Status = nil }, "not bound"},
		"no content yet": {func(o *Resolved, _ *corev1.PersistentVolumeClaim, _ *Rules) {
			o.Snapshot.Snapshot.Status.BoundVolumeSnapshotContentName = nil
		}, "not bound"},
		"a content that is gone": {func(o *Resolved, _ *corev1.PersistentVolumeClaim, _ *Rules) { o.Snapshot.Content = nil }, "content does not exist"},
		"a content of another": {func(o *Resolved, _ *corev1.PersistentVolumeClaim, _ *Rules) {
			o.Snapshot.Content.Spec.VolumeSnapshotRef.UID = "x"
		}, "bound to another"},
		"a content of a snapshot in another namespace": {func(o *Resolved, _ *corev1.PersistentVolumeClaim, _ *Rules) {
			o.Snapshot.Content.Spec.VolumeSnapshotRef.Namespace = "x"
		}, "bound to another"},
		"a snapshot of another driver": {func(o *Resolved, _ *corev1.PersistentVolumeClaim, _ *Rules) { o.Snapshot.Content.Spec.Driver = "x" }, "driver x"},
		"one that is not ready": {func(o *Resolved, _ *corev1.PersistentVolumeClaim, _ *Rules) {
			o.Snapshot.Snapshot.Status.ReadyToUse = nil
		}, "not ready"},
		"a content without a status": {func(o *Resolved, _ *corev1.PersistentVolumeClaim, _ *Rules) { o.Snapshot.Content.Status = nil }, "no handle"},
		"a content without a handle": {func(o *Resolved, _ *corev1.PersistentVolumeClaim, _ *Rules) {
			o.Snapshot.Content.Status.SnapshotHandle = nil
		}, "no handle"},
		"another mode": {func(_ *Resolved, c *corev1.PersistentVolumeClaim, _ *Rules) {
			c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
		}, kube.AnnAllowModeChange},
		"another mode that is allowed": {func(o *Resolved, c *corev1.PersistentVolumeClaim, _ *Rules) {
			c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
			o.Snapshot.Content.Annotations[kube.AnnAllowModeChange] = "true"
		}, ""},
		"another mode with an invalid annotation": {func(o *Resolved, c *corev1.PersistentVolumeClaim, _ *Rules) {
			c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
			o.Snapshot.Content.Annotations[kube.AnnAllowModeChange] = "yes"
		}, kube.AnnAllowModeChange},
		"another mode without --prevent-volume-mode-conversion": {func(_ *Resolved, c *corev1.PersistentVolumeClaim, rules *Rules) {
			c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
			rules.PreventModeConversion = false
		}, ""},
		"a mode that is not known": {func(o *Resolved, c *corev1.PersistentVolumeClaim, _ *Rules) {
			c.Spec.VolumeMode, o.Snapshot.Content.Spec.SourceVolumeMode = ptr.To(corev1.PersistentVolumeBlock), nil
		}, ""},
		"another namespace":                {func(o *Resolved, _ *corev1.PersistentVolumeClaim, _ *Rules) { moveAway(o) }, "no ReferenceGrant in namespace other"},
		"another namespace that grants it": {func(o *Resolved, _ *corev1.PersistentVolumeClaim, _ *Rules) { moveAway(o); o.Granted = true }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o, c, rules := snapshot(), claim(), Rules{Driver: "csitest.holdfast.io", PreventModeConversion: true}
			tt.change(o, c, &rules)
			got, err := o.ContentSource(c, rules)
			checkError(t, err, tt.err)
			if id := got.GetSnapshot().GetSnapshotId(); (err == nil) != (id == "snap-1") {
				t.Errorf("the content source is %q", got)
			}
		})
	}
}

// deleteAfter deletes a snapshot some time after the claim was created.
func (o *Resolved) deleteAfter(c *corev1.PersistentVolumeClaim, after time.Duration) {
	c.CreationTimestamp = metav1.NewTime(time.Unix(1_800_000_000, 0))
	o.Snapshot.Snapshot.DeletionTimestamp = ptr.To(metav1.NewTime(c.CreationTimestamp.Add(after)))
}

// moveAway moves a snapshot to another namespace.
func moveAway(o *Resolved) {
	o.Namespace, o.Snapshot.Snapshot.Namespace, o.Snapshot.Content.Spec.VolumeSnapshotRef.Namespace = "other", "other", "other"
}

func request(c *corev1.PersistentVolumeClaim, size string) {
	c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
}

func TestClone(t *testing.T) {
	tests := map[string]struct {
		change func(*Claim, *corev1.PersistentVolumeClaim)
		err    string
	}{
		"a bound claim":                         {func(*Claim, *corev1.PersistentVolumeClaim) {}, ""},
		"a larger claim":                        {func(_ *Claim, c *corev1.PersistentVolumeClaim) { request(c, "2Gi") }, ""},
		"a claim of another class":              {func(from *Claim, _ *corev1.PersistentVolumeClaim) { from.Claim.Spec.StorageClassName = ptr.To("other") }, ""},
		"a smaller claim":                       {func(_ *Claim, c *corev1.PersistentVolumeClaim) { request(c, "1Mi") }, "the claim asks for 1Mi and its source for 1Gi"},
		"no such claim":                         {func(from *Claim, _ *corev1.PersistentVolumeClaim) { *from = Claim{} }, "PersistentVolumeClaim team/source: does not exist"},
		"a claim that is being deleted":         {func(from *Claim, c *corev1.PersistentVolumeClaim) { from.deleteAfter(c, time.Second) }, "is being deleted"},
		"a claim that is kept for the clone":    {func(from *Claim, c *corev1.PersistentVolumeClaim) { from.deleteAfter(c, time.Second).addFinalizer() }, ""},
		"a claim that is kept for older clones": {func(from *Claim, c *corev1.PersistentVolumeClaim) { from.deleteAfter(c, -time.Second).addFinalizer() }, "is being deleted"},
		"a claim without a volume":              {func(from *Claim, _ *corev1.PersistentVolumeClaim) { from.Claim.Status.Phase = corev1.ClaimPending }, "not bound"},
		"a claim without a class":               {func(from *Claim, _ *corev1.PersistentVolumeClaim) { from.Claim.Spec.StorageClassName = nil }, "StorageClass"},
		"a volume that is gone":                 {func(from *Claim, _ *corev1.PersistentVolumeClaim) { from.Volume = nil }, "volume pv-source does not exist"},
		"a volume of another driver":            {func(from *Claim, _ *corev1.PersistentVolumeClaim) { from.Volume.Spec.CSI.Driver = "x" }, "not one of driver csitest.holdfast.io"},
		"a volume without a driver":             {func(from *Claim, _ *corev1.PersistentVolumeClaim) { from.Volume.Spec.CSI = nil }, "not one of driver csitest.holdfast.io"},
		"a volume bound to another":             {func(from *Claim, _ *corev1.PersistentVolumeClaim) { from.Volume.Spec.ClaimRef.UID = "x" }, "not bound to it"},
		"a volume that is not bound":            {func(from *Claim, _ *corev1.PersistentVolumeClaim) { from.Volume.Status.Phase = corev1.VolumeReleased }, "not bound to it"},
		"a volume of another mode": {func(from *Claim, _ *corev1.PersistentVolumeClaim) {
			from.Volume.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
		}, "mode Block"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, o := claim(), &Resolved{Source: Source{KindClaim, "team", "source"}, Claim: clonable()}
			tt.change(o.Claim, c)
			got, err := o.ContentSource(c, Rules{Driver: "csitest.holdfast.io"})
			checkError(t, err, tt.err)
			if id := got.GetVolume().GetVolumeId(); (err == nil) != (id == "vol-source") {
				t.Errorf("the content source is %q", got)
			}
		})
	}
}

// deleteAfter deletes the source some time after the clone was created.
func (c *Claim) deleteAfter(clone *corev1.PersistentVolumeClaim, after time.Duration) *Claim {
	clone.CreationTimestamp = metav1.NewTime(time.Unix(1_800_000_000, 0))
	c.Claim.DeletionTimestamp = ptr.To(metav1.NewTime(clone.CreationTimestamp.Add(after)))
	return c
}

func (c *Claim) addFinalizer() { c.Claim.Finalizers = []string{kube.CloneSourceFinalizer} }

// clonable is a claim that claim can be cloned from.
func clonable() *Claim {
	c := claim()
	c.Name, c.UID, c.Spec.VolumeName, c.Status.Phase = "source", "source", "pv-source", corev1.ClaimBound
	return &Claim{Claim: c, Volume: &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-source"},
		Spec: corev1.PersistentVolumeSpec{
			ClaimRef: &corev1.ObjectReference{Namespace: c.Namespace, Name: c.Name, UID: c.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: "csitest.holdfast.io", VolumeHandle: "vol-source"},
			},
		},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound},
	}}
}

// claim is one without a source.
func claim() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data", Namespace: "team", UID: "claim"},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: ptr.To("fast"),
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			VolumeMode:       ptr.To(corev1.PersistentVolumeFilesystem),
		},
	}
}

// checkError wants an error that contains part, or none if part is empty.
func checkError(t *testing.T, err error, part string) {
	t.Helper()
	if (err != nil) != (part != "") || (err != nil && !strings.Contains(err.Error(), part)) {
		t.Errorf("got error %v, want one that contains %q", err, part)
	}
}
