package bind

import (
	"errors"
	"testing"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// The cache may not show that a content is there, or is bound to the group, since a
// moment ago.
func TestAGroupThatGoesTakesItsContentAlong(t *testing.T) {
	tests := map[string]struct{ from, stale func(*seen) }{
		"one that was made":  {made, lost},
		"one that was bound": {imported, unbound},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			tt.from(s)
			s.group.DeletionTimestamp = ptr.To(metav1.Now())
			s.content.Finalizers, s.content.Spec.VolumeGroupSnapshotRef.UID = []string{snapshot.Group.Finalizer}, s.group.UID
			api, content := cluster(t, s.group, s.content), client.ObjectKeyFromObject(s.content)
			tt.stale(s)
			r := &Reconciler{client: api, live: api, waits: snapshot.Measured}
			if err := r.letGo(t.Context(), s); err != nil {
				t.Error(err)
			}
			left := &groupv1.VolumeGroupSnapshotContent{}
			if err := api.Get(t.Context(), content, left); err != nil {
				t.Fatal(err)
			}
			if left.DeletionTimestamp == nil || left.Annotations[snapshot.Group.BeingDeleted] == "" {
				t.Error("the group was let go, and nobody will ever delete its content")
			}
		})
	}
}

func cluster(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(snapshotv1.AddToScheme(scheme), groupv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}
