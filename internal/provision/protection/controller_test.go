package protection

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/kube/kubetest"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

const uid = "11111111-2222-3333-4444-555555555555"

// A protectionWorld has the controllers of two nodes. It calls between after the
// first one has read the operations and before it writes.
type protectionWorld struct {
	client.WithWatch
	one, two *Controller
	between  func()
}

func newProtectionWorld(t *testing.T, objects ...client.Object) *protectionWorld {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, snapshotv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	w := &protectionWorld{WithWatch: fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build(), between: func() {}}
	watched := interceptor.NewClient(w.WithWatch, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, into client.ObjectList, o ...client.ListOption) error {
			defer w.between()
			return c.List(ctx, into, o...)
		},
	})
	w.one, w.two = newTestController(watched), newTestController(w)
	return w
}

func newTestController(c client.Client) *Controller {
	return New(c, c, Options{Driver: "csitest.holdfast.io", Namespace: "ns", Shared: true, RetryMax: time.Minute, Events: kube.NewEventsWithRecorder(record.NewFakeRecorder(9))})
}

// startOperation records an operation of the second node and protects its source, as the
// provisioner does before it calls the driver.
func (w *protectionWorld) startOperation(t *testing.T, from source.Source) error {
	t.Helper()
	op, _, err := w.store().Write(t.Context(), &pending.Operation{
		Request: &csipb.CreateVolumeRequest{Name: "pvc-" + uid}, Source: &from,
		Volume: &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-" + uid}, Spec: corev1.PersistentVolumeSpec{
			ClaimRef:               &corev1.ObjectReference{Namespace: "team", Name: "data", UID: uid},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csitest.holdfast.io"}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	op.UID = "lease" // As the API server sets it.
	return w.two.Protect(t.Context(), op)
}

// store is that of the second node.
func (w *protectionWorld) store() *pending.Store {
	return pending.NewStore(pending.Options{Client: w, APIReader: w, Namespace: "ns", Driver: "csitest.holdfast.io", Node: "n2"})
}

func (w *protectionWorld) isProtected(t *testing.T, s source.Source) bool {
	t.Helper()
	object, err := w.two.get(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return object != nil && slices.Contains(object.GetFinalizers(), finalizer(s))
}

func restored() *snapshotv1.VolumeSnapshot {
	return &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "before", Finalizers: []string{kube.SnapshotSourceFinalizer}}}
}

var before = source.Source{Kind: source.KindSnapshot, Namespace: "team", Name: "before"}

func TestASourceIsUnprotectedWithoutOperations(t *testing.T) {
	w := newProtectionWorld(t, restored())
	if _, err := w.one.Reconcile(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if w.isProtected(t, before) {
		t.Error("it is still protected")
	}
}

func TestASourceStaysProtectedWhileAnotherNodeReadsIt(t *testing.T) {
	w := newProtectionWorld(t, restored())
	if err := w.startOperation(t, before); err != nil {
		t.Fatal(err)
	}
	again, err := w.one.Reconcile(t.Context(), before)
	if err != nil || again.RequeueAfter == 0 {
		t.Errorf("it is checked again after %s, %v", again.RequeueAfter, err)
	}
	if !w.isProtected(t, before) {
		t.Error("it was unprotected")
	}
}

// An update of the source by a node that has not read the operation must fail.
func TestASourceStaysProtectedThatAnotherNodeJustStartsToRead(t *testing.T) {
	w := newProtectionWorld(t, restored())
	w.between = func() {
		if err := w.startOperation(t, before); err != nil {
			t.Error(err)
		}
	}
	if _, err := w.one.Reconcile(t.Context(), before); !apierrors.IsConflict(err) {
		t.Errorf("it was updated by a node that has not read the operation: %v", err)
	}
	if !w.isProtected(t, before) {
		t.Error("it was unprotected")
	}
}

func TestAnUnprotectedSourceIsProtectedAgain(t *testing.T) {
	w := newProtectionWorld(t, restored())
	if _, err := w.one.Reconcile(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if err := w.startOperation(t, before); err != nil || !w.isProtected(t, before) {
		t.Errorf("it is not protected: %v", err)
	}
}

// Another node may be about to remove the finalizer of a claim that is being deleted. An
// operation that relies on the finalizer updates the claim, so that the removal fails.
func TestAProtectedClaimThatIsBeingDeletedIsTouched(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: "team", Name: "source", Finalizers: []string{kube.CloneSourceFinalizer}, DeletionTimestamp: &metav1.Time{Time: time.Unix(1, 0)},
	}}
	w, from := newProtectionWorld(t, claim), source.Source{Kind: source.KindClaim, Namespace: "team", Name: "source"}
	version := func() string {
		object, err := w.two.get(t.Context(), from)
		if err != nil {
			t.Fatal(err)
		}
		return object.GetResourceVersion()
	}
	before := version()
	if err := w.startOperation(t, from); err != nil {
		t.Errorf("got %v", err)
	}
	if version() == before {
		t.Error("nothing was updated, so another node could unprotect it")
	}
}

func TestAnUnprotectedClaimThatIsBeingDeletedCannotBeProtected(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: "team", Name: "source", Finalizers: []string{"example.com/other"}, DeletionTimestamp: &metav1.Time{Time: time.Unix(1, 0)},
	}}
	w, from := newProtectionWorld(t, claim), source.Source{Kind: source.KindClaim, Namespace: "team", Name: "source"}
	if err := w.startOperation(t, from); !errors.Is(err, ErrDeleting) {
		t.Errorf("got %v", err)
	}
	op, err := w.store().Read(t.Context(), uid)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.two.ProtectIfPossible(t.Context(), op); err != nil {
		t.Errorf("an operation that was recorded before cannot continue: %v", err)
	}
}

// A rejected update must be retried: otherwise a claim would be Terminating for ever, and a
// snapshot until the next sweep.
func TestARejectedUpdateIsRetried(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "source", Finalizers: []string{kube.CloneSourceFinalizer}}}
	w := newProtectionWorld(t, claim, restored())
	refusing := newTestController(interceptor.NewClient(w.WithWatch, interceptor.Funcs{
		Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error {
			return apierrors.NewForbidden(corev1.Resource("persistentvolumeclaims"), "source", errors.New("a policy says no"))
		},
	}))
	for _, from := range []source.Source{{Kind: source.KindClaim, Namespace: "team", Name: "source"}, before} {
		object, err := w.two.get(t.Context(), from)
		if err != nil {
			t.Fatal(err)
		}
		if err := refusing.removeFinalizer(t.Context(), from, object); !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v", from, err)
		}
	}
}

func TestASourceThatCannotBeUnprotectedSaysWhy(t *testing.T) {
	w := newProtectionWorld(t, restored())
	policy, said := &kubetest.Policy{Response: kubetest.DeniedByPolicy("volumesnapshots", "before")}, record.NewFakeRecorder(9)
	w.one.client, w.one.Events = policy.Apply(w.WithWatch), kube.NewEventsWithRecorder(said)
	if _, err := w.one.Reconcile(t.Context(), before); !kube.IsDenied(err) {
		t.Errorf("got %v", err)
	}
	kubetest.WantEvent(t, said, "Warning", kube.ReasonDenied, "unprotecting", "before", "ValidatingAdmissionPolicy")
}
