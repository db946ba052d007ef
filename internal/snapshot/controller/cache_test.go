package controller

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

func TestWhatIsCached(t *testing.T) {
	whole := metav1.ObjectMeta{
		Namespace: "team", Name: "it", UID: "uid", ResourceVersion: "8", Generation: 2, Finalizers: []string{"f"},
		Labels:        map[string]string{"app": "database", "schedule.holdfast.io/uid": "s", "not-holdfast.io/x": "y"},
		Annotations:   map[string]string{"notes": "long", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "somebody"}},
	}
	labelled := func(labels map[string]string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "team", Name: "it", UID: "uid", ResourceVersion: "8", Generation: 2, Finalizers: []string{"f"}, Labels: labels}
	}
	bare := metav1.ObjectMeta{Namespace: "team", Name: "it", UID: "uid", ResourceVersion: "8", Generation: 2}
	status := &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: ptr.To("h")}
	volume := func(change func(*corev1.PersistentVolumeSpec)) *corev1.PersistentVolume {
		v := &corev1.PersistentVolume{ObjectMeta: whole}
		v.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h", VolumeAttributes: map[string]string{"pool": "ssd"}}
		v.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: "team", Name: "data", UID: "c", ResourceVersion: "7"}
		v.Spec.NodeAffinity, v.Status.Phase = &corev1.VolumeNodeAffinity{}, corev1.VolumeBound
		if change != nil {
			v.ObjectMeta, v.Status.Phase = bare, ""
			v.Spec.CSI.VolumeAttributes, v.Spec.ClaimRef.Kind, v.Spec.ClaimRef.ResourceVersion = nil, "", ""
			change(&v.Spec)
		}
		return v
	}
	tests := map[string]struct {
		options    Options
		have, want client.Object
	}{
		"a claim keeps its labels, which groups and schedules select by, and its volume": {
			have: &corev1.PersistentVolumeClaim{ObjectMeta: whole, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "v", StorageClassName: ptr.To("c")}},
			want: &corev1.PersistentVolumeClaim{ObjectMeta: labelled(maps.Clone(whole.Labels)), Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "v"}},
		},
		"a volume keeps its identity and its claim": {
			have: volume(nil), want: volume(func(s *corev1.PersistentVolumeSpec) { s.NodeAffinity = nil }),
		},
		"a volume keeps its node affinity with distributed snapshotting": {
			options: Options{Distributed: true}, have: volume(nil), want: volume(func(*corev1.PersistentVolumeSpec) {}),
		},
		"a snapshot keeps everything but foreign labels": {
			have: &snapshotv1.VolumeSnapshot{ObjectMeta: whole, Spec: snapshotv1.VolumeSnapshotSpec{VolumeSnapshotClassName: ptr.To("c")}},
			want: &snapshotv1.VolumeSnapshot{
				ObjectMeta: labelled(map[string]string{"schedule.holdfast.io/uid": "s"}), Spec: snapshotv1.VolumeSnapshotSpec{VolumeSnapshotClassName: ptr.To("c")},
			},
		},
		"a content keeps its references, its source and its status": {
			have: &snapshotv1.VolumeSnapshotContent{ObjectMeta: whole, Status: status, Spec: snapshotv1.VolumeSnapshotContentSpec{
				Driver: "d", DeletionPolicy: "Delete", VolumeSnapshotClassName: ptr.To("c"), SourceVolumeMode: ptr.To(corev1.PersistentVolumeBlock),
				Source:            snapshotv1.VolumeSnapshotContentSource{VolumeHandle: ptr.To("v"), SnapshotHandle: ptr.To("h")},
				VolumeSnapshotRef: corev1.ObjectReference{Kind: "VolumeSnapshot", Namespace: "team", Name: "it", UID: "s"},
			}},
			want: &snapshotv1.VolumeSnapshotContent{ObjectMeta: labelled(nil), Status: status, Spec: snapshotv1.VolumeSnapshotContentSpec{
				Driver: "d", DeletionPolicy: "Delete", VolumeSnapshotClassName: ptr.To("c"),
				Source:            snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: ptr.To("h")},
				VolumeSnapshotRef: corev1.ObjectReference{Namespace: "team", Name: "it", UID: "s"},
			}},
		},
		"a content keeps its node": {
			have: &snapshotv1.VolumeSnapshotContent{ObjectMeta: labelled(map[string]string{snapshot.ManagedBy: "n", "app": "database"})},
			want: &snapshotv1.VolumeSnapshotContent{ObjectMeta: labelled(map[string]string{snapshot.ManagedBy: "n"})},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			given := tt.have.DeepCopyObject()
			for range 2 { // The initial list calls it twice.
				kept, err := tt.options.transform(given)
				if err != nil || kept != given {
					t.Fatalf("the object was not changed in place: %v", err)
				}
			}
			if diff := cmp.Diff(tt.want, given); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheClaimIndexHasSnapshotsThatAreNotTaken(t *testing.T) {
	at := metav1.Now()
	tests := map[string]struct {
		finalizers []string
		status     *snapshotv1.VolumeSnapshotStatus
		want       bool
	}{
		"a new snapshot":                          {nil, nil, true},
		"a snapshot that is being taken":          {singleInfo.OwnFinalizers, &snapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: ptr.To("c")}, true},
		"a snapshot that is taken":                {singleInfo.OwnFinalizers, &snapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: ptr.To("c"), CreationTime: &at}, false},
		"a bound snapshot without our finalizers": {nil, &snapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: ptr.To("c")}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Finalizers: tt.finalizers}, Status: tt.status}
			s.Spec.Source.PersistentVolumeClaimName = ptr.To("claim")
			if got := len(neededClaim(s)) > 0; got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
