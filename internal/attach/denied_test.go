package attach

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolsrecord "k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
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

// deniedByPolicy is the response of an admission policy, and also that of a failed condition.
func deniedByPolicy() error {
	return apierrors.NewInvalid(schema.GroupKind{Kind: "VolumeAttachment"}, "va", nil)
}

func TestDeniedWriteIsNotAConflict(t *testing.T) {
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "volumeattachments"}, "va", errors.New("it has changed"))
	tests := map[string]struct {
		err     error
		version string // of the current object
		want    bool
	}{
		"a policy denies the write":         {deniedByPolicy(), "7", true},
		"the object has changed":            {deniedByPolicy(), "8", false},
		"the API server reports a conflict": {conflict, "7", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newState()
			s.attachment.UID, s.attachment.ResourceVersion = "uid", "7"
			now := s.attachment.DeepCopy()
			now.ResourceVersion = tt.version
			r := &Reconciler{apiReader: &server{object: now}, options: options}
			if got, err := r.isDenied(t.Context(), s, kube.WrapWriteError(tt.err, "writing")); got != tt.want || err != nil {
				t.Errorf("got %t, %v", got, err)
			}
		})
	}
}

// A finalizer that cannot be removed is reported, because no later event may enqueue
// the volume.
func TestFailureToRemoveTheVolumeFinalizerIsReported(t *testing.T) {
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{
		Name: "pv", UID: "uid", ResourceVersion: "7", Finalizers: []string{finalizer}, DeletionTimestamp: &metav1.Time{},
	}}
	api, said := &server{object: volume, err: deniedByPolicy()}, toolsrecord.NewFakeRecorder(1)
	k := finalizerReconciler{&Reconciler{client: api, apiReader: api, options: options, events: kube.NewEventsWithRecorder(said)}}
	if err := k.removeVolumeFinalizer(t.Context(), volume.DeepCopy()); err == nil || api.patches != 2 {
		t.Errorf("got %v after %d patches", err, api.patches)
	}
	select {
	case e := <-said.Events:
		if !strings.Contains(e, "removing the finalizer from PersistentVolume pv") {
			t.Errorf("got event %s", e)
		}
	default:
		t.Error("no event")
	}
}
