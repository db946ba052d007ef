package resize

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	toolsrecord "k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/kube/kubetest"
)

// A denied write is no conflict, which would be decided again at once.
func TestDeniedWriteIsReportedOnTheClaim(t *testing.T) {
	info := announced(t, csitest.Options{})
	tests := map[string]struct {
		do     func(*Reconciler, context.Context, *state) error
		reason string
		says   string
	}{
		"the start of an expansion": {func(r *Reconciler, ctx context.Context, s *state) error {
			err := r.patchClaimStatus(ctx, s, func(c *corev1.PersistentVolumeClaim) { startExpansion(c, 2*gib, false, noon) })
			return r.reportAPIError(s, expansionOperation(s, step{size: 2 * gib}), err)
		}, kube.ReasonVolumeResizeFailed, "resizing volume pv to 2Gi: writing the status of claim data"},
		"the new size of the volume": {func(r *Reconciler, ctx context.Context, s *state) error {
			err := r.patchVolume(ctx, s, func(v *corev1.PersistentVolume) { setVolumeSize(v, 2*gib, "") })
			return r.reportAPIError(s, expansionOperation(s, step{size: 2 * gib}), err)
		}, kube.ReasonVolumeResizeFailed, "resizing volume pv to 2Gi: writing PersistentVolume pv"},
		"the wait for a class": {func(r *Reconciler, ctx context.Context, s *state) error {
			name := "gold"
			s.claim.Spec.VolumeAttributesClassName = &name
			return r.waitForClass(ctx, s, step{})
		}, kube.ReasonVolumeModifyFailed, "writing the status of claim data"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := bound(info)
			policy, said := &kubetest.Policy{Response: kubetest.DeniedByPolicy("x", "data")}, toolsrecord.NewFakeRecorder(9)
			api := policy.Apply(fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(s.claim.DeepCopy(), s.volume.DeepCopy()).Build())
			r := &Reconciler{client: api, apiReader: api, options: options(), events: kube.NewEventsWithRecorder(said)}
			if err := tt.do(r, t.Context(), &s); !kube.IsDenied(err) || errors.Is(err, errConflict) {
				t.Errorf("got %v", err)
			}
			if policy.Denied() != 1 {
				t.Errorf("%d requests", policy.Denied())
			}
			kubetest.WantEvent(t, said, "Warning", tt.reason, tt.says, "ValidatingAdmissionPolicy")
		})
	}
}
