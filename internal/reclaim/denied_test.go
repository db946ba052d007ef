package reclaim

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/kube/kubetest"
)

// A denied write is no change of the object, which would enqueue it again.
func TestDeniedWriteIsReportedAndRetried(t *testing.T) {
	tests := map[string]struct {
		next  action
		phase corev1.PersistentVolumePhase
		says  string
	}{
		"the finalizer of a bound volume":    {addFinalizer, corev1.VolumeBound, "adding the finalizer to PersistentVolume pv"},
		"the finalizer of a retained volume": {removeFinalizer, corev1.VolumeReleased, "removing the finalizer from PersistentVolume pv"},
		"the volume's node":                  {locate, corev1.VolumeReleased, "writing annotation " + NodeAnnotation},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv", UID: "uid"}}
			volume.Status.Phase = tt.phase
			if tt.next == removeFinalizer {
				volume.Finalizers = []string{kube.VolumeFinalizer}
			}
			api := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(volume).Build()
			policy, said := &kubetest.Policy{Response: kubetest.DeniedByPolicy("persistentvolumes", "pv")}, record.NewFakeRecorder(9)
			r := &Reconciler{client: policy.Apply(api), apiReader: api, events: kube.NewEventsWithRecorder(said), options: &Options{Node: "n1"}}
			write := func() error {
				if tt.next == locate {
					return r.recordNode(t.Context(), volume.DeepCopy())
				}
				return r.execute(t.Context(), state{volume: volume.DeepCopy()}, tt.next)
			}
			if err := write(); err == nil {
				t.Error("it is not retried")
			}
			kubetest.WantEvent(t, said, "Warning", kube.ReasonDenied, tt.says, "ValidatingAdmissionPolicy 'frozen'", "change the policy")
			policy.Response = nil
			if err := write(); err != nil {
				t.Errorf("without the policy: %v", err)
			}
		})
	}
}

func TestEventsOfBoundVolumesAreOnTheClaim(t *testing.T) {
	volume := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: "ns", Name: "data", UID: "uid"}}}
	if got := eventTarget(volume); got != volume {
		t.Errorf("of a released volume: %v", got)
	}
	volume.Status.Phase = corev1.VolumeBound
	if got := eventTarget(volume); got.GetNamespace() != "ns" || got.GetUID() != "uid" {
		t.Errorf("of a bound volume: %v", got)
	}
}
