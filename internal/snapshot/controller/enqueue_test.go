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

// The cache has nothing of namespaces that somebody else works on, and it is an
// error to ask it for them: a client that is not there stands for that.
func TestWhatOthersWorkOnIsNotLookedFor(t *testing.T) {
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

func TestWhatOfAContentWakesItsSnapshot(t *testing.T) {
	tests := map[string]struct {
		change func(*snapshotv1.VolumeSnapshotContent)
		want   bool
	}{
		"the resync":                      {func(c *snapshotv1.VolumeSnapshotContent) { c.ResourceVersion = "1" }, true},
		"another one of the same name":    {func(c *snapshotv1.VolumeSnapshotContent) { c.UID = "other" }, true},
		"its spec, or that it shall go":   {func(c *snapshotv1.VolumeSnapshotContent) { c.Generation++ }, true},
		"what keeps it":                   {func(c *snapshotv1.VolumeSnapshotContent) { c.Finalizers = nil }, true},
		"that it is of a group":           {annotated(snapshot.GroupHandleAnnotation), true},
		"what the driver has said":        {func(c *snapshotv1.VolumeSnapshotContent) { c.Status.ReadyToUse = ptr.To(true) }, true},
		"the record of the other half":    {annotated(snapshot.Single.BeingCreated), false},
		"our own word that it may go":     {annotated(snapshot.Single.BeingDeleted), false},
		"what concerns nobody, as labels": {func(c *snapshotv1.VolumeSnapshotContent) { c.Labels = map[string]string{"a": "b"} }, false},
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

// Without the label that speaks against its claim a snapshot can be taken.
func TestALabelThatIsRemovedWakesItsSnapshot(t *testing.T) {
	s := ofClaim()
	labelled(s, "uid-old")
	before, now := s.snapshot, s.snapshot.DeepCopy()
	before.ResourceVersion, now.ResourceVersion = "1", "2"
	wakes := newRules(&singleKind{}, &Options{}).snapshotChanges()
	if wakes.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: now}) {
		t.Error("what concerns nobody wakes it")
	}
	now.Labels = nil
	if !wakes.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: now}) {
		t.Error("it goes on waiting")
	}
}

// A claim that was deleted and made again may come as one change. The new one was
// made after the snapshot was deleted, so that need not wait any longer.
func TestWhatOfAClaimWakesTheSnapshotThatItIsFilledFrom(t *testing.T) {
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
		"it has its volume":            {changed(func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimBound }), true},
		"another one of its name":      {changed(func(c *corev1.PersistentVolumeClaim) { c.UID = "two" }), true},
		"what concerns nobody, labels": {changed(func(c *corev1.PersistentVolumeClaim) { c.Labels = map[string]string{"a": "b"} }), false},
	}
	for name, tt := range tests {
		if got := claimChanges().Update(event.UpdateEvent{ObjectOld: pending, ObjectNew: tt.now}); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !claimChanges().Delete(event.DeleteEvent{Object: pending}) {
		t.Error("its end wakes nobody")
	}
}
