package provision

import (
	"errors"
	"testing"

	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/kube/kubetest"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
)

func TestDeniedWriteIsReportedOnTheClaim(t *testing.T) {
	s := readyState(t)
	withOperation(t, &s)
	policy := &kubetest.Policy{Response: kubetest.LacksPermission("create", "leases", "provision-"+uid)}
	api := policy.Apply(fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(s.claim.DeepCopy()).Build())
	store := pending.NewStore(pending.Options{Client: api, APIReader: api, Namespace: "ns", Driver: "csitest.holdfast.io"})
	r := &Reconciler{client: api, apiReader: api, options: options(), pending: store}
	tests := map[string]struct {
		do   func() error
		says string
	}{
		"the record of the operation": {func() error { _, _, err := store.Write(t.Context(), s.operation); return err }, "recording the operation to create volume pvc-"},
		"the end of the operation":    {func() error { return r.finish(t.Context(), s.operation) }, "deleting the record of the operation"},
		"another node":                {func() error { return r.unselectNode(t.Context(), s.claim) }, "asking the scheduler for another node"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			said := record.NewFakeRecorder(9)
			r.events = kube.NewEventsWithRecorder(said)
			err := tt.do()
			r.reportFailure(s, err)
			r.reportDenied(s, err)
			if len(said.Events) != 1 {
				t.Errorf("it is reported %d times", len(said.Events))
			}
			kubetest.WantEvent(t, said, "Warning", kube.ReasonProvisioningFailed, tt.says, `cannot create resource "leases"`, "grant that account this permission")
		})
	}
}

func TestDenialsAreReportedOnTheLeaseOfAClaimThatIsGone(t *testing.T) {
	s := state{class: class(), info: driverInfo(t, csitest.Options{})}
	s.claim = claim()
	withOperation(t, &s)
	s.claim = nil
	said := record.NewFakeRecorder(9)
	r := &Reconciler{options: options(), events: kube.NewEventsWithRecorder(said)}
	r.reportDenied(s, errors.New("no answer"))
	if len(said.Events) > 0 {
		t.Errorf("what is only repeated is reported: %s", <-said.Events)
	}
	r.reportDenied(s, kubetest.DeniedByPolicy("leases", "provision-"+uid))
	kubetest.WantEvent(t, said, "ValidatingAdmissionPolicy")
}
