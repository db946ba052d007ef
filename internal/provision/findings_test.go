package provision

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// noting is a journal of a node with the intent of a claim on record.
func noting(t *testing.T, node string) (*journal, *intent) {
	t.Helper()
	w := newGuardWorld(t, restored())
	s := ready(t)
	begun(t, &s)
	j := &journal{client: w, live: w, namespace: "ns", driver: "csitest.holdfast.io", node: node}
	i, _, err := j.write(t.Context(), s.intent)
	if err != nil {
		t.Fatal(err)
	}
	return j, i
}

// What was found out about a volume is there for whoever goes on, and goes again.
func TestWhatWasFoundOutIsOnRecord(t *testing.T) {
	j, i := noting(t, "")
	if err := j.setHandle(t.Context(), i, "vol-1"); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Truncate(time.Second)
	if err := j.setRefused(t.Context(), i, at); err != nil {
		t.Fatal(err)
	}
	again, err := j.read(t.Context(), i.claimUID())
	if err != nil || again.handle != "vol-1" || !again.refused.Equal(at) || again.first {
		t.Errorf("on record is %+v, %v", again, err)
	}
	if err := j.setRefused(t.Context(), i, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if again, err = j.read(t.Context(), i.claimUID()); err != nil || !again.refused.IsZero() || again.handle != "vol-1" {
		t.Errorf("on record is %+v, %v", again, err)
	}
}

// An intent that another leader has erased meanwhile is put on record again, with the
// volume that there is.
func TestWhatWasFoundOutIsPutOnRecordAgain(t *testing.T) {
	j, i := noting(t, "")
	lease := &coordinationv1.Lease{}
	if err := j.live.Get(t.Context(), i.record, lease); err != nil {
		t.Fatal(err)
	}
	if err := j.client.Delete(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	if err := j.setHandle(t.Context(), i, "vol-1"); err != nil {
		t.Fatal(err)
	}
	if again, err := j.read(t.Context(), i.claimUID()); err != nil || again.handle != "vol-1" {
		t.Errorf("on record is %+v, %v", again, err)
	}
}

// What is at one node's driver is nobody else's business: another node would ask its own
// driver to delete it.
func TestWhatWasFoundOutIsNotWrittenToAnotherNodesIntent(t *testing.T) {
	j, i := noting(t, "n1")
	lease := &coordinationv1.Lease{}
	if err := j.live.Get(t.Context(), i.record, lease); err != nil {
		t.Fatal(err)
	}
	lease.Annotations[nodeAnnotation] = "n2"
	if err := j.client.Update(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	if err := j.setHandle(t.Context(), i, "vol-1"); err == nil {
		t.Error("it was written")
	}
	if err := j.live.Get(t.Context(), client.ObjectKeyFromObject(lease), lease); err != nil || lease.Annotations[handleAnnotation] != "" {
		t.Errorf("the other node's intent says %q, %v", lease.Annotations[handleAnnotation], err)
	}
}
