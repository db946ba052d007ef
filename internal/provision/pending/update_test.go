package pending

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// storeWithOperation is the store of a node with one recorded operation.
func storeWithOperation(t *testing.T, node string) (*Store, *Operation) {
	t.Helper()
	s, _ := newStore(t, node)
	op, _, err := s.Write(t.Context(), operation())
	if err != nil {
		t.Fatal(err)
	}
	return s, op
}

// The next attempt reads what the calls have shown, and it can be removed again.
func TestAnUpdateIsRecorded(t *testing.T) {
	s, op := storeWithOperation(t, "")
	if err := s.SetHandle(t.Context(), op, "vol-1"); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Truncate(time.Second)
	if err := s.SetFailingSince(t.Context(), op, at); err != nil {
		t.Fatal(err)
	}
	again, err := s.Read(t.Context(), op.ClaimUID())
	if err != nil || again.Handle != "vol-1" || !again.FailingSince.Equal(at) || again.FirstAttempt {
		t.Errorf("recorded is %+v, %v", again, err)
	}
	if err := s.SetFailingSince(t.Context(), op, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if again, err = s.Read(t.Context(), op.ClaimUID()); err != nil || !again.FailingSince.IsZero() || again.Handle != "vol-1" {
		t.Errorf("recorded is %+v, %v", again, err)
	}
}

// An operation whose Lease another leader has deleted is recorded again, with the
// volume's handle.
func TestAnUpdateCreatesADeletedLease(t *testing.T) {
	s, op := storeWithOperation(t, "")
	lease := &coordinationv1.Lease{}
	if err := s.APIReader.Get(t.Context(), op.Record, lease); err != nil {
		t.Fatal(err)
	}
	if err := s.Client.Delete(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	if err := s.SetHandle(t.Context(), op, "vol-1"); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Read(t.Context(), op.ClaimUID()); err != nil || again.Handle != "vol-1" {
		t.Errorf("recorded is %+v, %v", again, err)
	}
}

// A handle belongs to one node's driver: another node would delete the handle at its
// own driver.
func TestAnUpdateDoesNotWriteAnotherNodesLease(t *testing.T) {
	s, op := storeWithOperation(t, "n1")
	lease := &coordinationv1.Lease{}
	if err := s.APIReader.Get(t.Context(), op.Record, lease); err != nil {
		t.Fatal(err)
	}
	lease.Annotations[nodeAnnotation] = "n2"
	if err := s.Client.Update(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	if err := s.SetHandle(t.Context(), op, "vol-1"); err == nil {
		t.Error("it was written")
	}
	if err := s.APIReader.Get(t.Context(), client.ObjectKeyFromObject(lease), lease); err != nil || lease.Annotations[handleAnnotation] != "" {
		t.Errorf("the other node's Lease has handle %q, %v", lease.Annotations[handleAnnotation], err)
	}
}
