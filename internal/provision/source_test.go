package provision

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
)

func TestSourceOf(t *testing.T) {
	tests := map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   *source
		ours   bool
	}{
		"nothing": {func(*corev1.PersistentVolumeClaim) {}, nil, true},
		"a snapshot": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ptr.To(groupSnapshot), Kind: kindSnapshot, Name: "s"}
		}, &source{kindSnapshot, "team", "s"}, true},
		"a claim": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: kindClaim, Name: "c"}
		}, &source{kindClaim, "team", "c"}, true},
		"a snapshot of another namespace": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: ptr.To(groupSnapshot), Kind: kindSnapshot, Name: "s", Namespace: ptr.To("other")}
		}, &source{kindSnapshot, "other", "s"}, true},
		"an empty namespace is the claim's own": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: kindClaim, Name: "c", Namespace: ptr.To("")}
		}, &source{kindClaim, "team", "c"}, true},
		"dataSource comes before dataSourceRef": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: kindClaim, Name: "one"}
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: kindClaim, Name: "two"}
		}, &source{kindClaim, "team", "one"}, true},
		"a kind of somebody else": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: ptr.To("example.com"), Kind: "Backup", Name: "b"}
		}, &source{"Backup", "team", "b"}, false},
		"a snapshot of another group": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: ptr.To("example.com"), Kind: kindSnapshot, Name: "s"}
		}, &source{kindSnapshot, "team", "s"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := claim()
			tt.change(c)
			got, ours := sourceOf(c)
			if diff := cmp.Diff(tt.want, got); diff != "" || ours != tt.ours {
				t.Errorf("ours is %v, want %v: %s", ours, tt.ours, diff)
			}
		})
	}
}

// snapshot is one that can be restored to claim.
func snapshot() *origin {
	return &origin{source: source{kindSnapshot, "team", "before"}, snapshot: &found{
		snapshot: &snapshotv1.VolumeSnapshot{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "before", UID: "s"},
			Status: &snapshotv1.VolumeSnapshotStatus{
				BoundVolumeSnapshotContentName: ptr.To("content"), ReadyToUse: ptr.To(true), RestoreSize: ptr.To(resource.MustParse("1Gi")),
			},
		},
		content: &snapshotv1.VolumeSnapshotContent{
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
		change func(*origin, *seen, *Options)
		err    string
	}{
		"a snapshot that is ready":  {func(*origin, *seen, *Options) {}, ""},
		"a larger claim":            {func(_ *origin, s *seen, _ *Options) { s.request("2Gi") }, ""},
		"a smaller claim":           {func(_ *origin, s *seen, _ *Options) { s.request("1Mi") }, "the claim asks for 1Mi and the snapshot takes 1Gi"},
		"a size that is not known":  {func(o *origin, _ *seen, _ *Options) { o.snapshot.snapshot.Status.RestoreSize = nil }, ""},
		"no such snapshot":          {func(o *origin, _ *seen, _ *Options) { o.snapshot = &found{} }, "VolumeSnapshot team/before: does not exist"},
		"a snapshot on its way out": {func(o *origin, s *seen, _ *Options) { o.going(s, -time.Second) }, "is being deleted"},
		"one on its way out that we hold": {func(o *origin, s *seen, _ *Options) {
			o.going(s, -time.Second)
			o.snapshot.snapshot.Finalizers = []string{kube.SnapshotSourceFinalizer}
		}, ""},
		"one whose deletion was asked for after the claim": {func(o *origin, s *seen, _ *Options) { o.going(s, time.Second) }, ""},
		"or in the same second":                            {func(o *origin, s *seen, _ *Options) { o.going(s, 0) }, ""},
		"but not in another namespace": {func(o *origin, s *seen, _ *Options) {
			moveAway(o)
			o.granted = true
			o.going(s, time.Second)
		}, "is being deleted"},
		"no status yet":                {func(o *origin, _ *seen, _ *Options) { o.snapshot.snapshot.Status = nil }, "not bound"},
		"no content yet":               {func(o *origin, _ *seen, _ *Options) { o.snapshot.snapshot.Status.BoundVolumeSnapshotContentName = nil }, "not bound"},
		"a content that is gone":       {func(o *origin, _ *seen, _ *Options) { o.snapshot.content = nil }, "content does not exist"},
		"a content of another":         {func(o *origin, _ *seen, _ *Options) { o.snapshot.content.Spec.VolumeSnapshotRef.UID = "x" }, "bound to another"},
		"a content of a namesake":      {func(o *origin, _ *seen, _ *Options) { o.snapshot.content.Spec.VolumeSnapshotRef.Namespace = "x" }, "bound to another"},
		"a snapshot of another driver": {func(o *origin, _ *seen, _ *Options) { o.snapshot.content.Spec.Driver = "x" }, "driver x"},
		"one that is not ready":        {func(o *origin, _ *seen, _ *Options) { o.snapshot.snapshot.Status.ReadyToUse = nil }, "not ready"},
		"a content without a status":   {func(o *origin, _ *seen, _ *Options) { o.snapshot.content.Status = nil }, "no handle"},
		"a content without a handle":   {func(o *origin, _ *seen, _ *Options) { o.snapshot.content.Status.SnapshotHandle = nil }, "no handle"},
		"another mode":                 {func(_ *origin, s *seen, _ *Options) { s.claim.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) }, kube.AnnAllowModeChange},
		"another mode that is allowed": {func(o *origin, s *seen, _ *Options) {
			s.claim.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
			o.snapshot.content.Annotations[kube.AnnAllowModeChange] = "true"
		}, ""},
		"another mode that is allowed by no clear word": {func(o *origin, s *seen, _ *Options) {
			s.claim.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
			o.snapshot.content.Annotations[kube.AnnAllowModeChange] = "yes"
		}, kube.AnnAllowModeChange},
		"another mode where nobody minds": {func(_ *origin, s *seen, opts *Options) {
			s.claim.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
			opts.PreventModeConversion = false
		}, ""},
		"a mode that is not known": {func(o *origin, s *seen, _ *Options) {
			s.claim.Spec.VolumeMode, o.snapshot.content.Spec.SourceVolumeMode = ptr.To(corev1.PersistentVolumeBlock), nil
		}, ""},
		"another namespace":                {func(o *origin, _ *seen, _ *Options) { moveAway(o) }, "no ReferenceGrant in namespace other"},
		"another namespace that grants it": {func(o *origin, _ *seen, _ *Options) { moveAway(o); o.granted = true }, ""},
	}
	base := ready(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o, s, opts := snapshot(), base, options()
			s.claim, opts.PreventModeConversion = base.claim.DeepCopy(), true
			tt.change(o, &s, opts)
			got, err := o.content(s, opts)
			checkError(t, err, tt.err)
			if id := got.GetSnapshot().GetSnapshotId(); (err == nil) != (id == "snap-1") {
				t.Errorf("the driver is told %q", got)
			}
		})
	}
}

// going has a snapshot be deleted some time after the claim was made.
func (o *origin) going(s *seen, after time.Duration) {
	s.claim.CreationTimestamp = metav1.NewTime(time.Unix(1_800_000_000, 0))
	o.snapshot.snapshot.DeletionTimestamp = ptr.To(metav1.NewTime(s.claim.CreationTimestamp.Add(after)))
}

// moveAway puts a snapshot into another namespace.
func moveAway(o *origin) {
	o.Namespace, o.snapshot.snapshot.Namespace, o.snapshot.content.Spec.VolumeSnapshotRef.Namespace = "other", "other", "other"
}

func (s *seen) request(size string) {
	s.claim.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
}

func TestClone(t *testing.T) {
	tests := map[string]struct {
		change func(*cloned, *seen)
		err    string
	}{
		"a bound claim":                    {func(*cloned, *seen) {}, ""},
		"a larger claim":                   {func(_ *cloned, s *seen) { s.request("2Gi") }, ""},
		"a claim of another class":         {func(c *cloned, _ *seen) { c.claim.Spec.StorageClassName = ptr.To("other") }, ""},
		"a smaller claim":                  {func(_ *cloned, s *seen) { s.request("1Mi") }, "the claim asks for 1Mi and its source for 1Gi"},
		"no such claim":                    {func(c *cloned, _ *seen) { *c = cloned{} }, "PersistentVolumeClaim team/source: does not exist"},
		"a claim on its way out":           {func(c *cloned, s *seen) { c.going(s, time.Second) }, "is being deleted"},
		"one that is kept for the clone":   {func(c *cloned, s *seen) { c.going(s, time.Second).keep() }, ""},
		"one that is kept for an older":    {func(c *cloned, s *seen) { c.going(s, -time.Second).keep() }, "is being deleted"},
		"a claim that waits for its own":   {func(c *cloned, _ *seen) { c.claim.Status.Phase = corev1.ClaimPending }, "not bound"},
		"a claim without a class":          {func(c *cloned, _ *seen) { c.claim.Spec.StorageClassName = nil }, "StorageClass"},
		"a volume that is gone":            {func(c *cloned, _ *seen) { c.volume = nil }, "volume pv-source does not exist"},
		"a volume of another driver":       {func(c *cloned, _ *seen) { c.volume.Spec.CSI.Driver = "x" }, "not one of driver csitest.holdfast.io"},
		"a volume without a driver":        {func(c *cloned, _ *seen) { c.volume.Spec.CSI = nil }, "not one of driver csitest.holdfast.io"},
		"a volume bound to another":        {func(c *cloned, _ *seen) { c.volume.Spec.ClaimRef.UID = "x" }, "not bound to it"},
		"a volume that is bound to nobody": {func(c *cloned, _ *seen) { c.volume.Status.Phase = corev1.VolumeReleased }, "not bound to it"},
		"a volume of another mode":         {func(c *cloned, _ *seen) { c.volume.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) }, "mode Block"},
	}
	base := ready(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := base
			s.claim = base.claim.DeepCopy()
			o := &origin{source: source{kindClaim, "team", "source"}, claim: clonable()}
			tt.change(o.claim, &s)
			got, err := o.content(s, options())
			checkError(t, err, tt.err)
			if id := got.GetVolume().GetVolumeId(); (err == nil) != (id == "vol-source") {
				t.Errorf("the driver is told %q", got)
			}
		})
	}
}

// going has the source be deleted some time after the clone was made.
func (c *cloned) going(s *seen, after time.Duration) *cloned {
	s.claim.CreationTimestamp = metav1.NewTime(time.Unix(1_800_000_000, 0))
	c.claim.DeletionTimestamp = ptr.To(metav1.NewTime(s.claim.CreationTimestamp.Add(after)))
	return c
}

func (c *cloned) keep() { c.claim.Finalizers = []string{kube.CloneSourceFinalizer} }

// clonable is a claim that claim can be cloned from.
func clonable() *cloned {
	c := claim()
	c.Name, c.UID, c.Spec.VolumeName, c.Status.Phase = "source", "source", "pv-source", corev1.ClaimBound
	return &cloned{claim: c, volume: &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-source"},
		Spec: corev1.PersistentVolumeSpec{
			ClaimRef: reference(c),
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: "csitest.holdfast.io", VolumeHandle: "vol-source"},
			},
		},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound},
	}}
}

func TestGrants(t *testing.T) {
	entry := func(pairs ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i].(string)] = pairs[i+1] //nolint:forcetypeassert // Keys are strings.
		}
		return m
	}
	claims := entry("group", "", "kind", "PersistentVolumeClaim", "namespace", "team")
	snapshots := entry("group", groupSnapshot, "kind", kindSnapshot)
	tests := map[string]struct {
		from, to []any
		want     bool
	}{
		"all snapshots":                {[]any{claims}, []any{snapshots}, true},
		"this snapshot":                {[]any{claims}, []any{entry("group", groupSnapshot, "kind", kindSnapshot, "name", "before")}, true},
		"another snapshot":             {[]any{claims}, []any{entry("group", groupSnapshot, "kind", kindSnapshot, "name", "after")}, false},
		"one of several":               {[]any{entry("kind", "Pod"), claims}, []any{entry("kind", "Secret"), snapshots}, true},
		"another kind":                 {[]any{claims}, []any{entry("group", "", "kind", kindClaim)}, false},
		"another group":                {[]any{claims}, []any{entry("group", "example.com", "kind", kindSnapshot)}, false},
		"another namespace":            {[]any{entry("group", "", "kind", "PersistentVolumeClaim", "namespace", "x")}, []any{snapshots}, false},
		"another kind that refers":     {[]any{entry("group", "", "kind", "Pod", "namespace", "team")}, []any{snapshots}, false},
		"nothing":                      {nil, nil, false},
		"something that is no grant":   {[]any{"team"}, []any{snapshots}, false},
		"a namespace that is a number": {[]any{entry("group", "", "kind", "PersistentVolumeClaim", "namespace", int64(1))}, []any{snapshots}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"from": tt.from, "to": tt.to}}}
			if got := grantOf(o).allows(source{kindSnapshot, "other", "before"}, "team"); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
