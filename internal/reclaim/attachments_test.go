package reclaim

import (
	"maps"
	"strings"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
)

const driverName = "csitest.holdfast.io"

// A driver may gain or lose PUBLISH_UNPUBLISH_VOLUME by an upgrade, while this process runs or
// while it does not. No attached volume is deleted.
func TestAttachedVolumeIsNotDeleted(t *testing.T) {
	const create, publish = csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, csipb.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME
	tests := map[string]struct {
		watches     bool // the driver had PUBLISH_UNPUBLISH_VOLUME at the start
		publishes   bool // it has it now
		wasAttached bool // the volume has the attacher's finalizer
		attacher    string
		want        int // calls of DeleteVolume
	}{
		"the driver attaches volumes":                        {watches: true, publishes: true, attacher: driverName},
		"it has lost that since the start":                   {watches: true, attacher: driverName},
		"it has gained that since the start":                 {publishes: true, attacher: driverName},
		"it had lost that at the start":                      {wasAttached: true, attacher: driverName},
		"it has gained that, and the volume is not attached": {publishes: true, wasAttached: true, want: 1},
		"an attachment of another driver's volume":           {publishes: true, attacher: "other.example.com", want: 1},
		"it has never attached the volume":                   {attacher: driverName, want: 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			can := []csipb.ControllerServiceCapability_RPC_Type{create}
			if tt.publishes {
				can = append(can, publish)
			}
			storage := csitest.New(csitest.Options{Controller: can})
			s := releasedState()
			s.volume.UID, s.volume.Spec.CSI.VolumeHandle = "u", "gone"
			if tt.wasAttached {
				s.volume.Finalizers = append(s.volume.Finalizers, "external-attacher/csitest-holdfast-io")
			}
			objects := []client.Object{s.volume}
			if tt.attacher != "" {
				objects = append(objects, &storagev1.VolumeAttachment{
					ObjectMeta: metav1.ObjectMeta{Name: "a"},
					Spec:       storagev1.VolumeAttachmentSpec{Attacher: tt.attacher, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To("pv")}},
				})
			}
			r := newReconciler(t, storage, objects...)
			r.watchesAttachments = tt.watches
			result, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.volume)})
			if err != nil {
				t.Fatal(err)
			}
			if got := storage.Calls(csi.DeleteVolume); got != tt.want {
				t.Errorf("DeleteVolume was called %d times, want %d", got, tt.want)
			}
			if again := result.RequeueAfter > 0; again != (tt.want == 0 && !tt.watches) {
				t.Errorf("it is reconciled again after %s", result.RequeueAfter)
			}
		})
	}
}

// newReconciler returns a reconciler for a driver and a cluster with some objects.
func newReconciler(t *testing.T, storage *csitest.Driver, objects ...client.Object) *Reconciler {
	t.Helper()
	driver, err := csi.Connect(t.Context(), csi.Options{Address: storage.Serve(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = driver.Close() })
	if _, err := driver.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithObjects(objects...).
		WithIndex(&storagev1.VolumeAttachment{}, attachmentsByVolume, func(o client.Object) []string { return []string{volumeName(o)} }).Build()
	return &Reconciler{
		client: c, apiReader: c, driver: driver, events: kube.NewEventsWithRecorder(record.NewFakeRecorder(100)),
		options: &Options{Driver: driverName, Provisioner: "storage.example.com/csi", RetryMax: time.Minute},
	}
}

// An old volume has no annotations with its secret. Those that other calls use, whose templates
// may refer to the claim, do not keep it from being deleted.
func TestOnlyTheSecretForDeletingIsResolved(t *testing.T) {
	const prefix = "csi.storage.k8s.io/"
	unrelated := map[string]string{prefix + "node-publish-secret-name": "${pvc.annotations['k']}", prefix + "node-publish-secret-namespace": "n"}
	tests := map[string]struct {
		parameters map[string]string
		want       *corev1.SecretReference
		err        string
	}{
		"none": {unrelated, nil, ""},
		"one": {
			merged(unrelated, map[string]string{prefix + "provisioner-secret-name": "${pvc.name}", prefix + "provisioner-secret-namespace": "${pvc.namespace}"}),
			&corev1.SecretReference{Namespace: "team", Name: "data"}, "",
		},
		"one that depends on the claim": {
			map[string]string{prefix + "provisioner-secret-name": "${pvc.annotations['k']}", prefix + "provisioner-secret-namespace": "n"}, nil,
			`parameter csi.storage.k8s.io/provisioner-secret-name: "${pvc.annotations['k']}" refers to annotations of claim team/data, which is gone: "k"; add them to PersistentVolume pv`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			volume := releasedState().volume
			volume.Spec.StorageClassName, volume.Spec.ClaimRef = "fast", &corev1.ObjectReference{Namespace: "team", Name: "data"}
			r := newReconciler(t, csitest.New(csitest.Options{}), &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, Parameters: tt.parameters})
			got, err := r.deletionSecretRef(t.Context(), volume)
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func merged(all ...map[string]string) map[string]string {
	into := map[string]string{}
	for _, one := range all {
		maps.Copy(into, one)
	}
	return into
}
