package attach

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	toolsrecord "k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/kube/kubetest"
)

// A server has one object and responds to every patch with an error.
type server struct {
	client.Client // No other method is called.
	object        client.Object
	err           error
	patches       int
}

func (s *server) Get(_ context.Context, _ client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	switch it := into.(type) {
	case *storagev1.VolumeAttachment:
		*it = *s.object.(*storagev1.VolumeAttachment)
	case *corev1.PersistentVolume:
		*it = *s.object.(*corev1.PersistentVolume)
	}
	return nil
}

func (s *server) Patch(context.Context, client.Object, client.Patch, ...client.PatchOption) error {
	s.patches++
	return s.err
}

func (s *server) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

// What a person has to change is told on the claim, and the error backs the next attempt off.
func TestDeniedWriteIsReportedOnTheClaim(t *testing.T) {
	ofKind := func(sub string) func(string, string, client.Object) bool {
		return func(_, subresource string, _ client.Object) bool { return subresource == sub }
	}
	tests := map[string]struct {
		change  func(*state)
		denies  func(verb, subresource string, o client.Object) bool
		do      func(*Reconciler, context.Context, state) error
		reason  string
		message string
	}{
		"the finalizer of the volume": {
			func(*state) {}, ofKind(""), (*Reconciler).protectVolume, kube.ReasonFailedAttach, "adding the finalizer to PersistentVolume pv",
		},
		"the record": {func(*state) {}, ofKind(""), (*Reconciler).writeRecord, kube.ReasonFailedAttach, "recording the attachment"},
		"the status": {
			func(*state) {}, ofKind("status"),
			func(r *Reconciler, ctx context.Context, s state) error { return r.setAttached(ctx, s.attachment, nil) }, kube.ReasonFailedAttach, "writing the status",
		},
		"the finalizer of the attachment": {
			func(s *state) { recorded(s); s.attachment.DeletionTimestamp = &metav1.Time{} }, ofKind(""),
			func(r *Reconciler, ctx context.Context, s state) error { return r.removeFinalizer(ctx, s.attachment) }, kube.ReasonFailedDetach, "removing the finalizer from the VolumeAttachment",
		},
	}
	for name, tt := range tests {
		for response, err := range map[string]error{
			"policy": kubetest.DeniedByPolicy("volumeattachments", "va"), "role": kubetest.LacksPermission("patch", "volumeattachments", "va"),
		} {
			t.Run(name+" by a "+response, func(t *testing.T) {
				s := newState()
				s.volume.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "ns", Name: "data", UID: "uid"}
				tt.change(&s)
				policy, said := &kubetest.Policy{Response: err, Denies: tt.denies}, toolsrecord.NewFakeRecorder(9)
				api := policy.Apply(fake.NewClientBuilder().WithScheme(scheme.Scheme).Build())
				r := &Reconciler{client: api, apiReader: api, options: options, events: kube.NewEventsWithRecorder(said)}
				got := r.reportFailure(t.Context(), s, tt.do(r, t.Context(), s))
				if got == nil || kube.IsConflict(got) {
					t.Errorf("got %v", got)
				}
				kubetest.WantEvent(t, said, "Warning", tt.reason, "pv on node", tt.message, kube.Message(err)[len(err.Error()):])
			})
		}
	}
}

// A finalizer that cannot be removed is reported, because no later event may enqueue
// the volume.
func TestFailureToRemoveTheVolumeFinalizerIsReported(t *testing.T) {
	tests := map[string]struct {
		err     error
		patches int
	}{
		"a policy denies it":           {kubetest.DeniedByPolicy("persistentvolumes", "pv"), 1},
		"the role does not permit it":  {kubetest.LacksPermission("patch", "persistentvolumes", "pv"), 1},
		"the volume changes each time": {apierrors.NewConflict(schema.GroupResource{Resource: "persistentvolumes"}, "pv", errors.New("modified")), 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{
				Name: "pv", UID: "uid", ResourceVersion: "7", Finalizers: []string{finalizer}, DeletionTimestamp: &metav1.Time{},
			}}
			api, said := &server{object: volume, err: tt.err}, toolsrecord.NewFakeRecorder(1)
			k := finalizerReconciler{&Reconciler{client: api, apiReader: api, options: options, events: kube.NewEventsWithRecorder(said)}}
			if err := k.removeVolumeFinalizer(t.Context(), volume.DeepCopy()); !errors.Is(err, tt.err) || api.patches != tt.patches {
				t.Errorf("got %v after %d patches", err, api.patches)
			}
			kubetest.WantEvent(t, said, "removing the finalizer from PersistentVolume pv")
		})
	}
}
