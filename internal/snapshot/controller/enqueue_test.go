package controller

import (
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// The cache has no other namespaces, and reading them is an error. Here the client is nil.
func TestOtherNamespacesAreNotRead(t *testing.T) {
	k := &singleKind{options: &Options{Namespaces: []string{"ours"}}}
	volume := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: "theirs", Name: "data"}}}
	if got := k.waitingForVolume(t.Context(), volume); len(got) > 0 {
		t.Errorf("the volume wakes %v", got)
	}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "theirs", Name: "data"}}
	if got := k.waitingForClaim(t.Context(), claim); len(got) > 0 {
		t.Errorf("the claim wakes %v", got)
	}
}

func TestContentChangesThatWakeASnapshot(t *testing.T) {
	tests := map[string]struct {
		change func(*snapshotv1.VolumeSnapshotContent)
		want   bool
	}{
		"the resync":                       {func(c *snapshotv1.VolumeSnapshotContent) { c.ResourceVersion = "1" }, true},
		"another content of the same name": {func(c *snapshotv1.VolumeSnapshotContent) { c.UID = "other" }, true},
		"its spec or its deletion":         {func(c *snapshotv1.VolumeSnapshotContent) { c.Generation++ }, true},
		"its finalizers":                   {func(c *snapshotv1.VolumeSnapshotContent) { c.Finalizers = nil }, true},
		"its membership in a group":        {annotated(snapshot.GroupHandleAnnotation), true},
		"its status":                       {func(c *snapshotv1.VolumeSnapshotContent) { c.Status.ReadyToUse = ptr.To(true) }, true},
		"the being-created annotation":     {annotated(snapshot.Single.BeingCreated), false},
		"the being-deleted annotation":     {annotated(snapshot.Single.BeingDeleted), false},
		"labels":                           {func(c *snapshotv1.VolumeSnapshotContent) { c.Labels = map[string]string{"a": "b"} }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := &snapshotv1.VolumeSnapshotContent{
				ObjectMeta: metav1.ObjectMeta{UID: "uid", ResourceVersion: "1", Finalizers: []string{snapshot.Single.Finalizer}},
				Status:     &snapshotv1.VolumeSnapshotContentStatus{},
			}
			now := before.DeepCopy()
			now.ResourceVersion = "2"
			tt.change(now)
			if got := contentChanged((&singleKind{}).ReadContent(before), (&singleKind{}).ReadContent(now)); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func annotated(key string) func(*snapshotv1.VolumeSnapshotContent) {
	return func(c *snapshotv1.VolumeSnapshotContent) { c.Annotations = map[string]string{key: snapshot.Yes} }
}

// A snapshot can be taken without the label that did not match its claim.
func TestARemovedClaimLabelWakesTheSnapshot(t *testing.T) {
	s := ofClaim()
	labelled(s, "uid-old")
	before, now := s.snapshot, s.snapshot.DeepCopy()
	before.ResourceVersion, now.ResourceVersion = "1", "2"
	wakes := newRules(&singleKind{}, &Options{}).snapshotChanges()
	if wakes.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: now}) {
		t.Error("an update without a change wakes it")
	}
	now.Labels = nil
	if !wakes.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: now}) {
		t.Error("the removed label does not wake it")
	}
}

// A claim that was deleted and created again may come as one update. The new claim was
// created after the snapshot was deleted, so the snapshot does not wait for it.
func TestClaimChangesThatWakeASnapshot(t *testing.T) {
	pending := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: "one"}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}}
	changed := func(change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		c := pending.DeepCopy()
		change(c)
		return c
	}
	tests := map[string]struct {
		now  *corev1.PersistentVolumeClaim
		want bool
	}{
		"it is bound":               {changed(func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimBound }), true},
		"another claim of its name": {changed(func(c *corev1.PersistentVolumeClaim) { c.UID = "two" }), true},
		"labels of a claim":         {changed(func(c *corev1.PersistentVolumeClaim) { c.Labels = map[string]string{"a": "b"} }), false},
	}
	for name, tt := range tests {
		if got := claimChanges().Update(event.UpdateEvent{ObjectOld: pending, ObjectNew: tt.now}); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !claimChanges().Delete(event.DeleteEvent{Object: pending}) {
		t.Error("its deletion wakes nothing")
	}
}
