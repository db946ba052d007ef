package sidecar

import (
	"errors"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

// The cache may show a content whose finalizer this process removed a moment ago: a repeated
// CreateSnapshot would create the snapshot again.
func TestAStaleCacheDoesNotCreateADeletedSnapshotAgain(t *testing.T) {
	tests := map[string]struct {
		shown  []func(content) // in the cache; it is gone in truth
		can    []csipb.ControllerServiceCapability_RPC_Type
		ending bool
	}{
		"to resolve an unknown outcome": {shown: []func(content){requestRecorded, deleting}, ending: true},
		"to retry":                      {shown: []func(content){requestRecorded}},
		"to poll a driver that cannot read snapshots": {
			shown: []func(content){uploading}, can: []csipb.ControllerServiceCapability_RPC_Type{csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			stale := newContent()
			for _, change := range tt.shown {
				change(stale)
			}
			server := csitest.New(csitest.Options{Name: driver, Controller: tt.can})
			connection, err := csi.Connect(t.Context(), csi.Options{Address: server.Serve(t)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { connection.Close() })
			if _, err := connection.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			r := reconciler()
			r.client, r.apiReader, r.driver = fakeClient(t, stale), fakeClient(t), connection
			if _, err := (queue{r, tt.ending}).Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: stale.Name}}); err != nil {
				t.Error(err)
			}
			if n := server.Calls(csi.CreateSnapshot); n != 0 {
				t.Errorf("CreateSnapshot was called %d times for a deleted content", n)
			}
		})
	}
}

func fakeClient(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(snapshotv1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&snapshotv1.VolumeSnapshotContent{}).WithObjects(objects...).Build()
}
