package e2e

import (
	"context"
	"errors"
	"slices"
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/test/world"
)

// cut makes a snapshot of a volume at the driver and the objects that a
// snapshot controller would make for it.
func cut(t *testing.T, w *world.World, api client.Client, volume *corev1.PersistentVolume, name string) *snapshotv1.VolumeSnapshot {
	t.Helper()
	handle := w.Cut(t, w.Namespace+name, volume.Spec.CSI.VolumeHandle)
	snapshot, content, err := w.Describe(t.Context(), api, name, handle)
	must(t, err)
	t.Cleanup(func() { must(t, client.IgnoreNotFound(api.Delete(context.Background(), content))) })
	return snapshot
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func from(kind, name string) func(*corev1.PersistentVolumeClaim) {
	group := ""
	if kind == "VolumeSnapshot" {
		group = "snapshot.storage.k8s.io"
	}
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: kind, Name: name}
	}
}

// Two restores run from one snapshot. While any of them runs the snapshot is
// protected, and the one that ends first does not take that from the other.
func TestASnapshotIsRestoredAndProtectedMeanwhile(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := w.Snapshots(t)
	w.Provisioner(t, "--retry-interval-start=0.1", "--retry-interval-max=1")
	w.Class(t, nil)
	w.Claim(t, "source", nil)
	snapshot := cut(t, w, api, w.Bound(t, "source"), "before")

	slow := w.Driver.Block(csi.CreateVolume)
	w.Claim(t, "slow", from("VolumeSnapshot", "before"))
	<-slow.Arrived()
	w.Claim(t, "quick", from("VolumeSnapshot", "before"))
	quick := w.Bound(t, "quick")
	// The intent of the quick one is off the record once a third claim is through the same steps.
	w.Claim(t, "plain", nil)
	w.Bound(t, "plain")
	if !protected(t, api, snapshot) {
		t.Error("the first restore that ended has unprotected the other's snapshot")
	}
	slow.Release()
	restored := w.Bound(t, "slow")
	world.Eventually(t, func(context.Context) error {
		if protected(t, api, snapshot) {
			return errors.New("the snapshot is still protected")
		}
		return nil
	})
	for _, v := range w.Driver.Volumes() {
		handle := v.Answer.GetContentSource().GetSnapshot().GetSnapshotId()
		if isRestored := v.ID == quick.Spec.CSI.VolumeHandle || v.ID == restored.Spec.CSI.VolumeHandle; isRestored != (handle != "") {
			t.Errorf("volume %s comes from %q", v.Name, handle)
		}
	}
	for _, name := range []string{"source", "slow", "quick", "plain"} {
		w.DropClaim(t, name)
	}
	w.NothingLeft(t)
}

func protected(t *testing.T, api client.Client, snapshot *snapshotv1.VolumeSnapshot) bool {
	t.Helper()
	must(t, api.Get(t.Context(), client.ObjectKeyFromObject(snapshot), snapshot))
	return slices.Contains(snapshot.Finalizers, kube.SnapshotSourceFinalizer)
}

// What a process that died has left protected is found at the next start; what
// another driver's provisioner protects is not ours to touch.
func TestLeftProtectionIsFoundAtTheStart(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := w.Snapshots(t)
	first := w.Provisioner(t)
	w.Class(t, nil)
	w.Claim(t, "source", nil)
	volume := w.Bound(t, "source")
	ours, other, lost := cut(t, w, api, volume, "ours"), cut(t, w, api, volume, "other"), cut(t, w, api, volume, "lost")
	first.Kill()
	for _, s := range []*snapshotv1.VolumeSnapshot{ours, other, lost} {
		s.Finalizers = append(s.Finalizers, kube.SnapshotSourceFinalizer)
		must(t, api.Update(t.Context(), s))
	}
	content := &snapshotv1.VolumeSnapshotContent{}
	must(t, api.Get(t.Context(), client.ObjectKey{Name: w.Namespace + "-other"}, content))
	content.Spec.Driver = "another.example.com"
	must(t, api.Update(t.Context(), content))
	must(t, api.Delete(t.Context(), &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: w.Namespace + "-lost"}}))
	w.DropSnapshot(t, api, lost.Name)

	w.Provisioner(t)
	w.SnapshotGone(t, api, lost.Name) // Whose content is gone, so nobody can tell whose it is.
	world.Eventually(t, func(context.Context) error {
		if protected(t, api, ours) {
			return errors.New("our snapshot is still protected")
		}
		return nil
	})
	w.Claim(t, "later", nil) // By now the sweep that freed ours is over.
	w.Bound(t, "later")
	if !protected(t, api, other) {
		t.Error("another driver's snapshot was unprotected")
	}
	other.Finalizers = nil
	must(t, api.Update(t.Context(), other))
	w.DropClaim(t, "source")
	w.DropClaim(t, "later")
	w.NothingLeft(t)
}

func TestAClaimIsClonedAndItsSourceStaysMeanwhile(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	// Another driver's provisioner, up and working, has nothing to do with the claim.
	other := world.New(t, csitest.Options{})
	other.Provisioner(t)
	other.Class(t, nil)
	other.Claim(t, "other", nil)
	other.Bound(t, "other")
	w.Provisioner(t, "--retry-interval-start=0.1", "--retry-interval-max=1")
	w.Class(t, nil)
	w.Claim(t, "source", nil)
	source := w.Bound(t, "source")
	working := w.Driver.Block(csi.CreateVolume)
	w.Claim(t, "clone", from("PersistentVolumeClaim", "source"))
	<-working.Arrived()
	w.DropClaim(t, "source")
	// A whole other claim comes and goes, and the source is still there.
	w.Claim(t, "other", nil)
	w.Bound(t, "other")
	w.DropClaim(t, "other")
	other.DropClaim(t, "other")
	other.NothingLeft(t)
	if claim, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Get(t.Context(), "source", metav1.GetOptions{}); err != nil || claim.DeletionTimestamp == nil {
		t.Errorf("the source is not held back: %v", err)
	}
	working.Release()
	clone := w.Bound(t, "clone")
	w.Gone(t, source)
	for _, v := range w.Driver.Volumes() {
		if from := v.Answer.GetContentSource().GetVolume().GetVolumeId(); v.ID == clone.Spec.CSI.VolumeHandle && from != source.Spec.CSI.VolumeHandle {
			t.Errorf("the clone comes from %q", from)
		}
	}
	w.DropClaim(t, "clone")
	w.NothingLeft(t)
}
