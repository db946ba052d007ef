package provision

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// requests counts the requests of a client.
type requests struct{ gets, lists int }

// countingReconciler returns a reconciler with the indexes of its cache.
func countingReconciler(t *testing.T, objects ...client.Object) (*Reconciler, client.Client, *requests) {
	t.Helper()
	scheme, n := runtime.NewScheme(), &requests{}
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, snapshotv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	r := &Reconciler{options: options()}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithIndex(&corev1.PersistentVolume{}, volumesByClaim, claimOfVolume).
		WithIndex(&corev1.PersistentVolumeClaim{}, claimsBySource, r.indexWaiting(waitsForSource)).Build()
	counting := interceptor.NewClient(c, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			n.gets++
			return c.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			n.lists++
			return c.List(ctx, l, opts...)
		},
	})
	r.client, r.apiReader = counting, counting
	return r, c, n
}

// While the API server is slow, a hundred workers wait for the cache. Each looks once and
// is then woken.
func TestWaitingForTheCacheReadsItOnce(t *testing.T) {
	tests := map[string]struct {
		event func(*Reconciler) // after a second
		want  time.Duration
	}{
		"it is woken by the volume of the claim":        {func(r *Reconciler) { r.volumes.wake(volumeOf(uid)) }, time.Second},
		"it is not woken by another volume":             {func(r *Reconciler) { r.volumes.wake(volumeOf("other")) }, cacheTimeout},
		"it ends if the cache does not show the volume": {func(*Reconciler) {}, cacheTimeout},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _, n := countingReconciler(t)
				start := time.Now()
				time.AfterFunc(time.Second, func() { tt.event(r) })
				r.waitForCache(t.Context(), uid)
				if took := time.Since(start); took != tt.want { // In virtual time.
					t.Errorf("it waited %s, want %s", took, tt.want)
				}
				if n.lists != 1 || len(r.volumes.waiting) != 0 {
					t.Errorf("the cache was read %d times, and %d still wait", n.lists, len(r.volumes.waiting))
				}
			})
		})
	}
}

func volumeOf(claim types.UID) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-" + string(claim)}, Spec: corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{UID: claim}}}
}

func TestWaitingEndsAtOnceIfTheCacheHasTheVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := countingReconciler(t, volumeOf(uid))
		start := time.Now()
		if r.waitForCache(t.Context(), uid); time.Since(start) != 0 {
			t.Errorf("it waited %s", time.Since(start))
		}
	})
}

// A snapshot is patched often: each claim that is restored from it adds and removes a
// finalizer. Only what a restore depends on wakes the claims, and each change is read
// once for all of them.
func TestASnapshotWakesItsClaimsOnlyIfWhatTheyWaitForChanges(t *testing.T) {
	snapshot := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "s", UID: "u"}, Status: &snapshotv1.VolumeSnapshotStatus{}}
	objects := []client.Object{snapshot}
	for i := range 50 {
		c := claim()
		c.Name, c.UID = fmt.Sprint("restore-", i), types.UID(fmt.Sprint("uid-", i))
		c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: ptr.To(source.GroupSnapshot), Kind: source.KindSnapshot, Name: "s"}
		objects = append(objects, c)
	}
	r, c, n := countingReconciler(t, objects...)
	for _, step := range []struct {
		what   string
		change func(*snapshotv1.VolumeSnapshot)
		want   int
	}{
		{"the first event", func(*snapshotv1.VolumeSnapshot) {}, 50},
		{"an annotation", func(s *snapshotv1.VolumeSnapshot) { s.Annotations = map[string]string{"a": "b"} }, 0},
		{"a finalizer", func(s *snapshotv1.VolumeSnapshot) { s.Finalizers = []string{kube.SnapshotSourceFinalizer} }, 0},
		{"an error", func(s *snapshotv1.VolumeSnapshot) {
			s.Status.Error = &snapshotv1.VolumeSnapshotError{Message: ptr.To("busy")}
		}, 0},
		{"it is bound", func(s *snapshotv1.VolumeSnapshot) { s.Status.BoundVolumeSnapshotContentName = ptr.To("content") }, 50},
		{"it is ready", func(s *snapshotv1.VolumeSnapshot) { s.Status.ReadyToUse = ptr.To(true) }, 50},
		{"its size is known", func(s *snapshotv1.VolumeSnapshot) { s.Status.RestoreSize = ptr.To(resource.MustParse("1Gi")) }, 50},
		{"a label", func(s *snapshotv1.VolumeSnapshot) { s.Labels = map[string]string{"a": "b"} }, 0},
	} {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(snapshot), snapshot); err != nil {
			t.Fatal(err)
		}
		step.change(snapshot)
		if err := c.Update(t.Context(), snapshot); err != nil {
			t.Fatal(err)
		}
		*n = requests{}
		if got := len(r.requestsForSnapshot(t.Context(), snapshot)); got != step.want || n.gets != 1 {
			t.Errorf("%s: %d claims are woken after %d reads, want %d after one", step.what, got, n.gets, step.want)
		}
	}
}

func TestASnapshotThatNobodyWaitsForIsNotRead(t *testing.T) {
	r, _, n := countingReconciler(t)
	if got := r.requestsForSnapshot(t.Context(), &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "s"}}); len(got) != 0 || n.gets != 0 {
		t.Errorf("%d claims are woken after %d reads", len(got), n.gets)
	}
}
