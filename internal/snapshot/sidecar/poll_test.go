package sidecar

import (
	"context"
	"slices"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

// connectedReconciler returns a reconciler with a class and one content that is not ready, and a
// driver whose snapshot is ready.
func connectedReconciler(t *testing.T, o csitest.Options, change func(content), parameters map[string]string) (*Reconciler, *csitest.Driver) {
	t.Helper()
	o.Name = driver
	server := csitest.New(o)
	connection, err := csi.Connect(t.Context(), csi.Options{Address: server.Serve(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	if _, err := connection.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	volume, err := connection.CreateVolume(t.Context(), &csipb.CreateVolumeRequest{
		Name: "data", VolumeCapabilities: []*csipb.VolumeCapability{{
			AccessType: &csipb.VolumeCapability_Mount{Mount: &csipb.VolumeCapability_MountVolume{}},
			AccessMode: &csipb.VolumeCapability_AccessMode{Mode: csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	made, err := connection.CreateSnapshot(t.Context(), &csipb.CreateSnapshotRequest{Name: "snapshot-uid-s", SourceVolumeId: volume.GetVolumeId()})
	if err != nil {
		t.Fatal(err)
	}
	c := newContent()
	uploading(c)
	c.Spec.Source.VolumeHandle, c.Status.SnapshotHandle = &volume.VolumeId, &made.SnapshotId
	if change != nil {
		change(c)
	}
	class := &snapshotv1.VolumeSnapshotClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Driver: driver, Parameters: parameters}
	r := reconciler()
	r.client = fakeClient(t, c, class)
	r.apiReader, r.driver = r.client, connection
	return r, server
}

// A snapshot that the sidecar created becomes ready even if it cannot be read, as it does with
// upstream, which never reads it.
func TestCreateIsRepeatedIfReadingFails(t *testing.T) {
	secret := func(name, namespace string) map[string]string {
		return map[string]string{
			"csi.storage.k8s.io/snapshotter-list-secret-name": name, "csi.storage.k8s.io/snapshotter-list-secret-namespace": namespace,
		}
	}
	rpc := csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS
	lists := []csipb.ControllerServiceCapability_RPC_Type{rpc, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}
	tests := map[string]struct {
		parameters map[string]string
		answers    codes.Code // to reading; OK for a read that succeeds
		again      bool
		says       string // the error; empty for none
	}{
		"a readable snapshot is read":                                     {nil, codes.OK, false, ""},
		"a driver that needs a secret that the class does not name":       {nil, codes.Unauthenticated, true, ""},
		"a driver that reports the missing secret as an invalid argument": {nil, codes.InvalidArgument, true, ""},
		"a driver without the capability that it announces":               {nil, codes.Unimplemented, true, ""},
		"a secret for reading that does not exist":                        {secret("none", "ns"), codes.OK, true, ""},
		"a secret for reading whose name depends on the snapshot":         {secret("s", "${volumesnapshot.namespace}"), codes.OK, true, ""},
		"a driver that is unavailable is polled later":                    {nil, codes.Unavailable, false, "Unavailable"},
		"a snapshot that the driver does not have is not created again":   {nil, codes.NotFound, false, "NotFound"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, server := connectedReconciler(t, csitest.Options{Controller: lists}, nil, tt.parameters)
			server.SetHooks(csitest.Hooks{Before: func(_ context.Context, method csi.Method, _ any) error {
				if method == csi.ListSnapshots && tt.answers != codes.OK {
					return status.Error(tt.answers, "as the test says")
				}
				return nil
			}})
			before := server.Calls(csi.CreateSnapshot)
			s, err := r.observe(t.Context(), r.client, "c")
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.readSnapshot(t.Context(), s)
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got %v, want an error that says %q", err, tt.says)
			}
			if err == nil && (!got.Ready || got.Handle != s.Handle) {
				t.Errorf("got %+v", got)
			}
			if again := server.Calls(csi.CreateSnapshot) > before; again != tt.again {
				t.Errorf("repeated: %t", again)
			}
		})
	}
}

// CreateSnapshot is repeated only for snapshots that the sidecar created: the others can only
// be read.
func TestOnlyCreatedSnapshotsAreCreatedAgain(t *testing.T) {
	for name, change := range map[string]func(content){
		"a member of a group": groupMember,
		"one that was there before": func(c content) {
			c.Spec.Source = snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: c.Status.SnapshotHandle}
		},
		"one that was deleted at that time": func(c content) { c.Finalizers = append(c.Finalizers, "x/y"); deleting(c) },
	} {
		t.Run(name, func(t *testing.T) {
			r, server := connectedReconciler(t, csitest.Options{}, change, nil)
			server.FailNext(csi.GetSnapshot, codes.PermissionDenied, "as the test says")
			before := server.Calls(csi.CreateSnapshot)
			s, err := r.observe(t.Context(), r.client, "c")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := r.readSnapshot(t.Context(), s); err == nil {
				t.Errorf("got %+v", got)
			}
			if server.Calls(csi.CreateSnapshot) > before {
				t.Error("CreateSnapshot was repeated")
			}
		})
	}
}

// A pre-provisioned snapshot counts as ready if the driver cannot read snapshots.
func TestPreProvisionedIsReadyIfTheDriverCannotRead(t *testing.T) {
	can := []csipb.ControllerServiceCapability_RPC_Type{csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}
	r, server := connectedReconciler(t, csitest.Options{Controller: can}, func(c content) { preProvisioned(c); c.Status = nil }, nil)
	before := server.Calls(csi.CreateSnapshot)
	s, err := r.observe(t.Context(), r.client, "c")
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.readSnapshot(t.Context(), s)
	if err != nil || !got.Ready || got.Handle != "h" || server.Calls(csi.CreateSnapshot) > before {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A driver may lose LIST_SNAPSHOTS by an upgrade, while a snapshot that somebody else took is not
// ready yet.
func TestPreProvisionedIsNotReadyIfTheDriverCannotReadAnyMore(t *testing.T) {
	can := []csipb.ControllerServiceCapability_RPC_Type{csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}
	r, _ := connectedReconciler(t, csitest.Options{Controller: can}, func(c content) {
		c.Spec.Source = snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: c.Status.SnapshotHandle}
	}, nil)
	s, err := r.observe(t.Context(), r.client, "c")
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.readSnapshot(t.Context(), s)
	if err == nil || !strings.Contains(err.Error(), "it announces neither GET_SNAPSHOT nor LIST_SNAPSHOTS: snapshot snapshot-2 was not ready") {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A driver that has lost a snapshot creates another one when the call is repeated. That must
// not be taken for the first one.
func TestALostSnapshotIsReported(t *testing.T) {
	r, server := connectedReconciler(t, csitest.Options{}, func(c content) { c.Status.SnapshotHandle = ptr.To("lost") }, nil)
	server.FailNext(csi.GetSnapshot, codes.PermissionDenied, "as the test says")
	s, err := r.observe(t.Context(), r.client, "c")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.readSnapshot(t.Context(), s); err == nil || !strings.Contains(err.Error(), "lost snapshot lost") {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Reading uses the secret that the class names for it.
func TestReadingUsesTheListSecret(t *testing.T) {
	r, server := connectedReconciler(t, csitest.Options{Record: true}, nil, map[string]string{
		"csi.storage.k8s.io/snapshotter-list-secret-name": "of-${volumesnapshotcontent.name}", "csi.storage.k8s.io/snapshotter-list-secret-namespace": "ns",
	})
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "of-c"}, Data: map[string][]byte{"key": []byte("list")}}
	if err := r.client.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	s, err := r.observe(t.Context(), r.client, "c")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.readSnapshot(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	calls := server.Log()
	i := slices.IndexFunc(calls, func(c csitest.Call) bool { return c.Method == csi.GetSnapshot })
	if i < 0 {
		t.Fatalf("it was not read: %v", calls)
	}
	if asked, ok := calls[i].Request.(*csipb.GetSnapshotRequest); !ok || asked.GetSecrets()["key"] != "list" {
		t.Errorf("the driver was sent %v", calls[i].Request)
	}
}
