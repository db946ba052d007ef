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

// The cache may show a content that this process itself has let go of, a moment
// ago: to ask the driver for its snapshot would make that again.
func TestASnapshotThatWasDeletedIsNotMadeAgainByAStaleCache(t *testing.T) {
	tests := map[string]struct {
		shown  []func(content) // in the cache; it is gone in truth
		can    []csipb.ControllerServiceCapability_RPC_Type
		ending bool
	}{
		"to find out whether it is there": {shown: []func(content){requestRecorded, deleting}, ending: true},
		"to try once more":                {shown: []func(content){requestRecorded}},
		"to see whether it is ready, where that cannot be read": {
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
				t.Errorf("the driver was asked %d times for a snapshot of which nothing tells", n)
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
