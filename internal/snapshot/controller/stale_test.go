package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/internal/snapshot/claimprotection"
)

// The cache may show a snapshot whose finalizers this process has just removed. A content
// that is created for it now would never be deleted.
func TestASnapshotThatIsGoneGetsNoContent(t *testing.T) {
	tests := map[string]func() *scene{
		"of a claim":            ofClaim,
		"that was there before": imported,
	}
	for name, from := range tests {
		t.Run(name, func(t *testing.T) {
			s := from()
			s.snapshot.Finalizers = []string{snapshot.AsSourceFinalizer, snapshot.BoundFinalizer}
			r := reconcilerOn(cluster(t, s.objects()...), cluster(t))
			if _, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.snapshot)}); err != nil {
				t.Error(err)
			}
			contents := &snapshotv1.VolumeSnapshotContentList{}
			if err := r.client.List(t.Context(), contents); err != nil {
				t.Fatal(err)
			}
			for _, c := range contents.Items {
				if c.Spec.VolumeSnapshotRef.UID != "" {
					t.Errorf("content %s is bound to a snapshot that is gone", c.Name)
				}
			}
		})
	}
}

// If a finalizer is added while the API server is already deleting the object, it is
// ignored. The content that was created after it must be deleted.
func TestTheContentOfASnapshotThatBypassedItsFinalizersIsDeleted(t *testing.T) {
	for name, from := range map[string]func() *scene{"of a claim": ofClaim, "that was there before": imported} {
		t.Run(name, func(t *testing.T) {
			s := from()
			s.snapshot.Finalizers = nil
			api := cluster(t, s.objects()...)
			r := reconcilerOn(&readOnce{Client: api}, api)
			if _, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.snapshot)}); err != nil {
				t.Error(err)
			}
			contents := &snapshotv1.VolumeSnapshotContentList{}
			if err := r.client.List(t.Context(), contents); err != nil || len(contents.Items) != 1 {
				t.Fatalf("there are %d contents, %v", len(contents.Items), err)
			}
			if c := contents.Items[0]; c.DeletionTimestamp == nil || c.Annotations[snapshot.Single.BeingDeleted] == "" {
				t.Error("the content will never be deleted")
			}
		})
	}
}

func TestTheOrphanOfASnapshotThatBypassedItsFinalizersIsDeleted(t *testing.T) {
	s := made()
	one := singleInfo.orphanOf(s.observed().Snapshot)
	if one == nil {
		t.Fatal("a snapshot that is gone with its finalizers leaves no orphan")
	}
	for age, goes := range map[time.Duration]bool{time.Second: true, time.Hour: false} {
		now := time.Now()
		s.content.CreationTimestamp = metav1.NewTime(now.Add(-age))
		api := cluster(t, s.objects()...)
		r := newOrphanReconciler(reconcilerOn(api, api))
		r.now = func() time.Time { return now }
		if _, err := r.Reconcile(t.Context(), *one); err != nil {
			t.Error(err)
		}
		left := &snapshotv1.VolumeSnapshotContent{}
		err := api.Get(t.Context(), client.ObjectKeyFromObject(s.content), left)
		if err != nil || (left.DeletionTimestamp != nil) != goes {
			t.Errorf("that a content of %s goes is %v, %v", age, !goes, err)
		}
	}
	if s.snapshot.Finalizers = nil; singleInfo.orphanOf(s.observed().Snapshot) != nil {
		t.Error("a snapshot without our finalizers leaves an orphan")
	}
}

// The finalizers of a snapshot were removed when it had no content, and the content was
// created after that. If it is newer than the deletion, it is deleted; otherwise it stays.
func TestAContentThatIsCreatedForADeletedSnapshotIsDeleted(t *testing.T) {
	deleted := time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC)
	given := func(s *scene) {
		s.snapshot.Spec.Source = snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: &s.content.Name}
	}
	tests := map[string]struct {
		made   time.Duration // after the deletion
		change func(*scene)
		goes   bool
	}{
		"created after the deletion":           {time.Second, nil, true},
		"created long after the deletion":      {8 * time.Minute, nil, true},
		"created for a group member":           {time.Second, memberContent, true},
		"created in the same second":           {0, nil, false},
		"created before":                       {-time.Second, nil, false},
		"of another snapshot":                  {time.Second, func(s *scene) { s.content.Spec.VolumeSnapshotRef.UID = "other" }, false},
		"created by an administrator":          {time.Second, given, false},
		"of a snapshot without our finalizers": {time.Second, func(s *scene) { s.snapshot.Finalizers = nil }, false},
		"of another name":                      {time.Second, func(s *scene) { s.content.Name = "other" }, false},
	}
	for name, tt := range tests {
		for order, contentFirst := range map[string]bool{"content first": true, "deletion first": false} {
			t.Run(name+", "+order, func(t *testing.T) {
				s := made()
				s.content.CreationTimestamp = metav1.NewTime(deleted.Add(tt.made))
				if tt.change != nil {
					tt.change(s)
				}
				s.content.Finalizers = []string{snapshot.Single.Finalizer}
				s.snapshot.DeletionTimestamp = &metav1.Time{Time: deleted}
				live := cluster(t, s.content)
				cached := cluster(t)
				if contentFirst {
					cached = live
				}
				r := newOrphanReconciler(reconcilerOn(cached, live))
				r.client = live // For what is written.
				queue := &orphansAdded{}
				if !contentFirst {
					r.client = cached
				}
				r.snapshotDeleted(t.Context(), r.kind.ReadSnapshot(s.snapshot), queue)
				r.client = live
				if !contentFirst {
					r.contentCreated(r.kind.ReadContent(s.content), queue)
				}
				for _, one := range queue.added {
					if _, err := r.Reconcile(t.Context(), one); err != nil {
						t.Error(err)
					}
				}
				left := &snapshotv1.VolumeSnapshotContent{}
				if err := live.Get(t.Context(), client.ObjectKeyFromObject(s.content), left); err != nil || (left.DeletionTimestamp != nil) != tt.goes {
					t.Errorf("that it goes is %v, %v", !tt.goes, err)
				}
			})
		}
	}
}

// orphansAdded is a queue that records the orphans.
type orphansAdded struct {
	orphanQueue
	added []orphan
}

func (q *orphansAdded) Add(one orphan) { q.added = append(q.added, one) }

// The cache of a leader that was suspended for longer than its Lease is stale.
func TestASuspendedLeaderReadsTheSnapshotFromTheAPIServer(t *testing.T) {
	for name, tt := range map[string]struct {
		paused time.Duration
		goes   bool
	}{"suspended": {time.Minute, true}, "fast": {time.Millisecond, false}} {
		t.Run(name, func(t *testing.T) {
			s := made()
			live := cluster(t, s.content)
			r := reconcilerOn(live, live)
			r.client = &shows{Client: live, snapshot: s.snapshot}
			it := s.observed()
			it.ObservedAt = r.now().Add(-tt.paused)
			if err := r.deleteContentIfOrphaned(t.Context(), it); err != nil {
				t.Fatal(err)
			}
			err := live.Get(t.Context(), client.ObjectKeyFromObject(s.content), s.content)
			if goes := s.content.DeletionTimestamp != nil; err != nil || goes != tt.goes {
				t.Errorf("that the content goes is %v, %v", goes, err)
			}
		})
	}
}

// shows is a client whose cache still shows a snapshot.
type shows struct {
	client.Client
	snapshot *snapshotv1.VolumeSnapshot
}

func (c *shows) Get(ctx context.Context, key client.ObjectKey, into client.Object, o ...client.GetOption) error {
	if it, ok := into.(*snapshotv1.VolumeSnapshot); ok {
		c.snapshot.DeepCopyInto(it)
		return nil
	}
	return c.Client.Get(ctx, key, into, o...)
}

// The cache may not show a content that was just created, or bound to the snapshot.
func TestAContentThatTheCacheDoesNotShowIsDeleted(t *testing.T) {
	tests := map[string]struct {
		from  func() *scene
		stale func(s *scene)
	}{
		"created": {going, func(s *scene) { s.content = nil }},
		"bound":   {imported, func(s *scene) { s.content.Spec.VolumeSnapshotRef.UID = "" }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := tt.from()
			s.snapshot.DeletionTimestamp, s.content.Spec.VolumeSnapshotRef.UID = ptr.To(metav1.Now()), s.snapshot.UID
			api := cluster(t, s.objects()...)
			content := client.ObjectKeyFromObject(s.content)
			tt.stale(s)
			if err := reconcilerOn(api, api).removeFinalizers(t.Context(), s.observed()); err != nil {
				t.Error(err)
			}
			left := &snapshotv1.VolumeSnapshotContent{}
			if err := api.Get(t.Context(), content, left); err != nil {
				t.Fatal(err)
			}
			if left.DeletionTimestamp == nil || left.Annotations[snapshot.Single.BeingDeleted] == "" {
				t.Error("the snapshot is gone, and its content will never be deleted")
			}
		})
	}
}

// An administrator who wants to rescue the snapshot at the driver sets the policy to
// Retain. The cache may still show Delete.
func TestAContentThatWasJustSetToRetainIsNotDeleted(t *testing.T) {
	for name, word := range map[string]func(*scene){"before it has the annotation": func(*scene) {}, "with the annotation": permit} {
		t.Run(name, func(t *testing.T) {
			s := going()
			s.snapshot.ResourceVersion = "1"
			word(s)
			api := cluster(t, s.objects()...)
			before := &snapshotv1.VolumeSnapshotContent{}
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(s.content), before); err != nil {
				t.Fatal(err)
			}
			now := before.DeepCopy()
			now.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentRetain
			if err := api.Update(t.Context(), now); err != nil {
				t.Fatal(err)
			}
			r := reconcilerOn(&lagging{Client: api, content: before}, api)
			result, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.snapshot)})
			if err != nil {
				t.Errorf("a conflict is reported: %v", err)
			}
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(s.content), now); err != nil || now.DeletionTimestamp != nil {
				t.Errorf("the content is deleted, though its policy is Retain: %v", err)
			}
			if result.RequeueAfter == 0 {
				t.Error("it is not reconciled again")
			}
			for range 2 { // The cache has caught up.
				if _, err := reconcilerOn(api, api).Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.snapshot)}); err != nil {
					t.Error(err)
				}
			}
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(s.snapshot), s.snapshot); !apierrors.IsNotFound(err) {
				t.Errorf("the snapshot is still there: %v", err)
			}
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(s.content), now); err != nil || now.DeletionTimestamp != nil {
				t.Errorf("the content is deleted, though its policy is Retain: %v", err)
			}
		})
	}
}

// A snapshot that has just got its finalizers relies on the protection of its claim, which
// an earlier snapshot has needed until now.
func TestAClaimStaysProtectedForASnapshotWhoseFinalizersTheCacheDoesNotShow(t *testing.T) {
	for name, protected := range map[string]bool{"protected meanwhile": true, "not protected": false} {
		t.Run(name, func(t *testing.T) {
			s := ofClaim()
			s.claim.Finalizers = []string{snapshot.ClaimFinalizer}
			cached := cluster(t, s.snapshot, s.claim)
			if protected {
				s.snapshot.Finalizers = singleInfo.OwnFinalizers
			}
			s.snapshot.ResourceVersion, s.claim.ResourceVersion = "", ""
			c := kindOn(cached, cluster(t, s.snapshot, s.claim)).claims
			if _, err := c.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.claim)}); err != nil {
				t.Fatal(err)
			}
			if err := cached.Get(t.Context(), client.ObjectKeyFromObject(s.claim), s.claim); err != nil {
				t.Fatal(err)
			}
			if kept := len(s.claim.Finalizers) > 0; kept != protected {
				t.Errorf("the claim is protected: %v", kept)
			}
		})
	}
}

// A snapshot whose label has the UID of an earlier claim of that name will never be taken
// of the claim, so it does not need it.
func TestAClaimIsNotProtectedForASnapshotOfItsPredecessor(t *testing.T) {
	for uid, kept := range map[string]bool{"uid-old": false, "uid-c": true} {
		s := ofClaim()
		s.snapshot.Finalizers, s.claim.Finalizers = singleInfo.OwnFinalizers, []string{snapshot.ClaimFinalizer}
		labelled(s, uid)
		api := cluster(t, s.snapshot, s.claim)
		c := kindOn(api, api).claims
		if _, err := c.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.claim)}); err != nil {
			t.Fatal(err)
		}
		if err := api.Get(t.Context(), client.ObjectKeyFromObject(s.claim), s.claim); err != nil {
			t.Fatal(err)
		}
		if got := len(s.claim.Finalizers) > 0; got != kept {
			t.Errorf("the claim is protected for a snapshot of %s: %v", uid, got)
		}
	}
}

// objects are the API objects of the scene.
func (s *scene) objects() []client.Object {
	all := []client.Object{s.snapshot}
	if s.content != nil {
		s.content.Finalizers = []string{snapshot.Single.Finalizer}
		all = append(all, s.content)
	}
	if s.claim != nil {
		all = append(all, s.claim, s.volume, s.class)
	}
	return all
}

// kindOn is the kind of single snapshots, on a cache and the API server behind it.
func kindOn(cache client.Client, apiReader client.Reader) *singleKind {
	k := &singleKind{client: cache, apiReader: apiReader, options: &Options{}}
	k.claims = claimprotection.New(cache, apiReader, nil, 0, k)
	return k
}

// reconcilerOn is the reconciler of single snapshots, on a cache and the API server behind
// it.
func reconcilerOn(cache client.Client, live client.Reader) *Reconciler {
	o := &Options{RetryStart: time.Millisecond}
	k := kindOn(cache, live)
	k.options = o
	return NewReconciler(cache, live, k, kube.NewEventsWithRecorder(record.NewFakeRecorder(100)), o)
}

func cluster(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(snapshotv1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithIndex(&snapshotv1.VolumeSnapshot{}, snapshotsByClaim, neededClaim).
		WithIndex(&corev1.PersistentVolumeClaim{}, claimsBySnapshot, awaitedSnapshots).
		WithStatusSubresource(&snapshotv1.VolumeSnapshot{}).Build()
}

// lagging is a client whose cache still shows an older content.
type lagging struct {
	client.Client
	content *snapshotv1.VolumeSnapshotContent
}

func (c *lagging) Get(ctx context.Context, key client.ObjectKey, into client.Object, o ...client.GetOption) error {
	if content, ok := into.(*snapshotv1.VolumeSnapshotContent); ok {
		c.content.DeepCopyInto(content)
		return nil
	}
	return c.Client.Get(ctx, key, into, o...)
}

// readOnce is a client that shows a snapshot once; then it is gone.
type readOnce struct {
	client.Client
	read bool
}

func (c *readOnce) Get(ctx context.Context, key client.ObjectKey, into client.Object, o ...client.GetOption) error {
	if _, ok := into.(*snapshotv1.VolumeSnapshot); ok {
		if c.read {
			return apierrors.NewNotFound(snapshotv1.Resource("volumesnapshots"), key.Name)
		}
		c.read = true
	}
	return c.Client.Get(ctx, key, into, o...)
}
