package e2e

import (
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/test/world"
)

// Two restores use one snapshot. The snapshot is protected while any of them runs: the
// first to finish does not remove the protection of the other.
func TestSnapshotIsProtectedDuringRestores(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := w.SnapshotClient(t)
	w.StartProvisioner(t, "--retry-interval-start=0.1", "--retry-interval-max=1")
	w.CreateClass(t, nil)
	w.CreateClaim(t, "source", nil)
	snapshot := createReadySnapshot(t, w, api, w.WaitBound(t, "source"), "before")

	slow := w.Driver.Block(csi.CreateVolume)
	w.CreateClaim(t, "slow", withSource("VolumeSnapshot", "before"))
	<-slow.Arrived()
	w.CreateClaim(t, "quick", withSource("VolumeSnapshot", "before"))
	quick := w.WaitBound(t, "quick")
	// After a third claim the pending operation of the quick one is deleted.
	w.CreateClaim(t, "plain", nil)
	w.WaitBound(t, "plain")
	if !isProtected(t, api, snapshot) {
		t.Error("the first restore to finish removed the protection of the other")
	}
	slow.Release()
	restored := w.WaitBound(t, "slow")
	waitUnprotected(t, api, snapshot)
	for _, v := range w.Driver.Volumes() {
		handle := v.Info.GetContentSource().GetSnapshot().GetSnapshotId()
		if isRestored := v.ID == quick.Spec.CSI.VolumeHandle || v.ID == restored.Spec.CSI.VolumeHandle; isRestored != (handle != "") {
			t.Errorf("volume %s comes from %q", v.Name, handle)
		}
	}
	for _, name := range []string{"source", "slow", "quick", "plain"} {
		w.DeleteClaim(t, name)
	}
	w.WaitNothingLeft(t)
}

// The next start finds what a dead process has left protected. Snapshots that another
// driver's provisioner protects are not touched.
func TestLeftoverProtectionIsRemovedAtStart(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := w.SnapshotClient(t)
	first := w.StartProvisioner(t)
	w.CreateClass(t, nil)
	w.CreateClaim(t, "source", nil)
	volume := w.WaitBound(t, "source")
	ours, other, lost := createReadySnapshot(t, w, api, volume, "ours"), createReadySnapshot(t, w, api, volume, "other"), createReadySnapshot(t, w, api, volume, "lost")
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
	w.DeleteSnapshot(t, api, lost.Name)

	w.StartProvisioner(t)
	w.WaitSnapshotGone(t, api, lost.Name) // Its content is gone, so nobody knows which driver's it is.
	waitUnprotected(t, api, ours)
	w.CreateClaim(t, "later", nil) // By now the cleanup that unprotected ours is done.
	w.WaitBound(t, "later")
	if !isProtected(t, api, other) {
		t.Error("another driver's snapshot was unprotected")
	}
	other.Finalizers = nil
	must(t, api.Update(t.Context(), other))
	w.DeleteClaim(t, "source")
	w.DeleteClaim(t, "later")
	w.WaitNothingLeft(t)
}

func TestCloneSourceStaysDuringClone(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	// Another driver's provisioner must not touch the claim.
	other := world.New(t, csitest.Options{})
	other.StartProvisioner(t)
	other.CreateClass(t, nil)
	other.CreateClaim(t, "other", nil)
	other.WaitBound(t, "other")
	w.StartProvisioner(t, "--retry-interval-start=0.1", "--retry-interval-max=1")
	w.CreateClass(t, nil)
	w.CreateClaim(t, "source", nil)
	source := w.WaitBound(t, "source")
	working := w.Driver.Block(csi.CreateVolume)
	w.CreateClaim(t, "clone", withSource("PersistentVolumeClaim", "source"))
	<-working.Arrived()
	w.DeleteClaim(t, "source")
	// The source still exists after another claim was created and deleted.
	w.CreateClaim(t, "other", nil)
	w.WaitBound(t, "other")
	w.DeleteClaim(t, "other")
	other.DeleteClaim(t, "other")
	other.WaitNothingLeft(t)
	if claim, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Get(t.Context(), "source", metav1.GetOptions{}); err != nil || claim.DeletionTimestamp == nil {
		t.Errorf("the source was deleted: %v", err)
	}
	working.Release()
	clone := w.WaitBound(t, "clone")
	w.WaitPVGone(t, source)
	for _, v := range w.Driver.Volumes() {
		if from := v.Info.GetContentSource().GetVolume().GetVolumeId(); v.ID == clone.Spec.CSI.VolumeHandle && from != source.Spec.CSI.VolumeHandle {
			t.Errorf("the clone comes from %q", from)
		}
	}
	w.DeleteClaim(t, "clone")
	w.WaitNothingLeft(t)
}
