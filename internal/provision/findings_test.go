package provision

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// storeWithOperation is a journal of a node with the intent of a claim on record.
func storeWithOperation(t *testing.T, node string) (*Store, *Operation) {
	t.Helper()
	w := newProtectionWorld(t, restored())
	s := readyState(t)
	withOperation(t, &s)
	j := &Store{client: w, apiReader: w, namespace: "ns", driver: "csitest.holdfast.io", node: node}
	i, _, err := j.Write(t.Context(), s.operation)
	if err != nil {
		t.Fatal(err)
	}
	return j, i
}

// What was found out about a volume is there for whoever goes on, and goes again.
func TestWhatWasFoundOutIsOnRecord(t *testing.T) {
	j, i := storeWithOperation(t, "")
	if err := j.SetHandle(t.Context(), i, "vol-1"); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Truncate(time.Second)
	if err := j.SetFailingSince(t.Context(), i, at); err != nil {
		t.Fatal(err)
	}
	again, err := j.Read(t.Context(), i.ClaimUID())
	if err != nil || again.Handle != "vol-1" || !again.FailingSince.Equal(at) || again.FirstAttempt {
		t.Errorf("on record is %+v, %v", again, err)
	}
	if err := j.SetFailingSince(t.Context(), i, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if again, err = j.Read(t.Context(), i.ClaimUID()); err != nil || !again.FailingSince.IsZero() || again.Handle != "vol-1" {
		t.Errorf("on record is %+v, %v", again, err)
	}
}

// An intent that another leader has erased meanwhile is put on record again, with the
// volume that there is.
func TestWhatWasFoundOutIsPutOnRecordAgain(t *testing.T) {
	j, i := storeWithOperation(t, "")
	lease := &coordinationv1.Lease{}
	if err := j.apiReader.Get(t.Context(), i.Record, lease); err != nil {
		t.Fatal(err)
	}
	if err := j.client.Delete(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	if err := j.SetHandle(t.Context(), i, "vol-1"); err != nil {
		t.Fatal(err)
	}
	if again, err := j.Read(t.Context(), i.ClaimUID()); err != nil || again.Handle != "vol-1" {
		t.Errorf("on record is %+v, %v", again, err)
	}
}

// What is at one node's driver is nobody else's business: another node would ask its own
// driver to delete it.
func TestWhatWasFoundOutIsNotWrittenToAnotherNodesIntent(t *testing.T) {
	j, i := storeWithOperation(t, "n1")
	lease := &coordinationv1.Lease{}
	if err := j.apiReader.Get(t.Context(), i.Record, lease); err != nil {
		t.Fatal(err)
	}
	lease.Annotations[nodeAnnotation] = "n2"
	if err := j.client.Update(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	if err := j.SetHandle(t.Context(), i, "vol-1"); err == nil {
		t.Error("it was written")
	}
	if err := j.apiReader.Get(t.Context(), client.ObjectKeyFromObject(lease), lease); err != nil || lease.Annotations[handleAnnotation] != "" {
		t.Errorf("the other node's intent says %q, %v", lease.Annotations[handleAnnotation], err)
	}
}
