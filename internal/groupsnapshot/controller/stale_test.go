package controller

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/internal/snapshot/claimprotection"
	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

// The cache may not show a content that was just created, or bound to the group.
func TestAGroupContentThatTheCacheDoesNotShowIsDeleted(t *testing.T) {
	tests := map[string]struct {
		from  func(*scene)
		stale func(*groupv1.VolumeGroupSnapshotContent) error
	}{
		"created": {made, func(c *groupv1.VolumeGroupSnapshotContent) error {
			return apierrors.NewNotFound(groupv1.Resource("volumegroupsnapshotcontents"), c.Name)
		}},
		"bound": {imported, func(c *groupv1.VolumeGroupSnapshotContent) error {
			c.Spec.VolumeGroupSnapshotRef.UID = ""
			return nil
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			tt.from(s)
			s.group.DeletionTimestamp = ptr.To(metav1.Now())
			s.content.Finalizers = []string{snapshot.Group.Finalizer}
			api := cluster(t, s.group, s.content)
			step(t, s.group, &lagging{Client: api, content: tt.stale}, api)
			isDeleted(t, api, s.content)
		})
	}
}

// If a finalizer is added while the API server is already deleting the object, it is
// ignored. The content that was created after it must be deleted.
func TestTheContentOfAGroupThatBypassedItsFinalizerIsDeleted(t *testing.T) {
	s := fresh()
	objects := []client.Object{s.group, s.class}
	for i := range s.sources {
		s.sources[i].Claim.Labels = s.group.Spec.Source.Selector.MatchLabels
		objects = append(objects, s.sources[i].Claim, s.sources[i].Volume)
	}
	api := cluster(t, objects...)
	step(t, s.group, &lagging{Client: api, looks: 1}, api)
	content := &groupv1.VolumeGroupSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: contentName(s.group)}}
	isDeleted(t, api, content)
}

// memberOf is a member of the group that a provisioner restores.
func memberOf(s *scene) *snapshotv1.VolumeSnapshot {
	return &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: "m", UID: "uid-m", Finalizers: []string{kube.SnapshotSourceFinalizer},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: groupv1.SchemeGroupVersion.String(), Kind: "VolumeGroupSnapshot", Name: s.group.Name, UID: s.group.UID}},
	}}
}

// A provisioner may restore a member for a claim that is gone, or of another namespace, or
// that the cache does not show yet. The cache may not show its finalizer either.
func TestTheContentOfAGroupStaysWhileAMemberIsRestored(t *testing.T) {
	for name, lags := range map[string]bool{"the cache shows it": false, "only the API server shows it": true} {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			made(s)
			s.group.DeletionTimestamp = ptr.To(metav1.Now())
			s.content.Finalizers = []string{snapshot.Group.Finalizer}
			one := memberOf(s)
			api := cluster(t, s.group, s.content, one)
			cached := &lagging{Client: api, unrestored: lags}
			said := step(t, s.group, cached, api)
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(s.content), s.content); err != nil {
				t.Fatal(err)
			}
			if s.content.DeletionTimestamp != nil || len(s.content.Annotations) > 0 {
				t.Error("the content is deleted while a member is restored")
			}
			if len(said) != 1 || !strings.Contains(said[0], "a provisioner restores m") {
				t.Errorf("the events are %q", said)
			}
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(one), one); err != nil {
				t.Fatal(err)
			}
			one.Finalizers = nil
			if err := api.Update(t.Context(), one); err != nil {
				t.Fatal(err)
			}
			step(t, s.group, cached, api)
			isDeleted(t, api, s.content)
		})
	}
}

// A member may be deleted before its group.
func TestAGroupWaitsForTheClaimsThatWereCreatedBeforeItsDeletion(t *testing.T) {
	deleted := time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC)
	tests := map[string]struct {
		made, memberDeleted time.Duration // after the group was deleted
		want                bool
	}{
		"created before": {-time.Hour, 0, true},
		"created after":  {time.Hour, 0, false},
		"created after the member was deleted, which was first": {-time.Minute, -time.Hour, false},
		"created after, before the member was deleted":          {time.Minute, time.Hour, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			made(s)
			s.group.DeletionTimestamp = &metav1.Time{Time: deleted}
			one := memberOf(s)
			one.Finalizers = []string{snapshot.InGroupFinalizer}
			if tt.memberDeleted != 0 {
				one.DeletionTimestamp = &metav1.Time{Time: deleted.Add(tt.memberDeleted)}
			}
			claim := &corev1.PersistentVolumeClaim{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "restored", CreationTimestamp: metav1.NewTime(deleted.Add(tt.made))},
				Spec: corev1.PersistentVolumeClaimSpec{
					DataSource: &corev1.TypedLocalObjectReference{APIGroup: ptr.To(snapshotv1.GroupName), Kind: "VolumeSnapshot", Name: "m"},
				},
				Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
			}
			k := kind()
			k.client = cluster(t, s.group, one, claim)
			users, err := k.DeletionBlocker(t.Context(), k.client, k.ReadSnapshot(s.group))
			if err != nil || (users != nil) != tt.want || users != nil && !strings.Contains(users.Text, "claim ns/restored waits") {
				t.Errorf("got %v, %v", users, err)
			}
		})
	}
}

// The cache may not show that a user has just removed a member from its group, to keep it.
func TestASnapshotThatIsNotAMemberAnyMoreStays(t *testing.T) {
	s := fresh()
	one := memberOf(s)
	api := cluster(t, one)
	before := one.DeepCopy()
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(one), one); err != nil {
		t.Fatal(err)
	}
	before.ResourceVersion = one.ResourceVersion
	one.OwnerReferences = nil
	if err := api.Update(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	k := kind()
	k.client, k.apiReader = api, api
	if err := k.deleteMember(t.Context(), before); !kube.IsConflict(err) {
		t.Errorf("got %v", err)
	}
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(one), one); err != nil || one.DeletionTimestamp != nil {
		t.Errorf("it is deleted, %v", err)
	}
}

func TestMemberChangesThatWakeAGroup(t *testing.T) {
	s := fresh()
	restored, free := memberOf(s), memberOf(s)
	free.Finalizers = nil
	if !memberReadyOrReleased().Update(event.UpdateEvent{ObjectOld: restored, ObjectNew: free}) {
		t.Error("the end of a restore does not wake the group")
	}
	if memberReadyOrReleased().Update(event.UpdateEvent{ObjectOld: free, ObjectNew: restored}) {
		t.Error("the beginning of a restore wakes the group")
	}
	k := kind()
	k.client = cluster(t)
	if got := k.groupOfSnapshot(t.Context(), free); len(got) > 0 {
		t.Errorf("a member of a group that is gone wakes %v", got)
	}
	k.client = cluster(t, s.group)
	if got := k.groupOfSnapshot(t.Context(), free); len(got) != 1 || got[0].Name != "g" {
		t.Errorf("a member that is deleted before its group wakes %v", got)
	}
}

// Nothing else reconciles a member that was deleted before its group when the group is
// gone.
func TestTheEndOfAGroupWakesTheMembersThatWereDeletedBefore(t *testing.T) {
	s := fresh()
	waiting, other := memberOf(s), memberOf(s)
	waiting.DeletionTimestamp, other.Name = ptr.To(metav1.Now()), "other"
	k := kind()
	k.client = cluster(t, waiting, other)
	if got := k.deletedMembers(t.Context(), s.group); len(got) != 1 || got[0].Name != waiting.Name {
		t.Errorf("the group wakes %v", got)
	}
	k.options.Namespaces = []string{"another"}
	if got := k.deletedMembers(t.Context(), s.group); len(got) > 0 {
		t.Errorf("a group of a namespace that is not watched wakes %v", got)
	}
	k.options.Namespaces = nil
	again := s.group.DeepCopy()
	again.UID = "uid-again"
	for name, passes := range map[string]bool{
		"deleted":                   groupDeleted().Delete(event.DeleteEvent{Object: s.group}),
		"deleted and created again": groupDeleted().Update(event.UpdateEvent{ObjectOld: s.group, ObjectNew: again}),
	} {
		if !passes {
			t.Errorf("a group that was %s wakes nobody", name)
		}
	}
	if groupDeleted().Update(event.UpdateEvent{ObjectOld: s.group, ObjectNew: s.group}) {
		t.Error("a group that exists wakes members")
	}
}

// step reconciles a group once, and returns the events.
func step(t *testing.T, about *groupv1.VolumeGroupSnapshot, cached client.Client, live client.Reader) (said []string) {
	t.Helper()
	recorder := record.NewFakeRecorder(10)
	o := &snapshotcontroller.Options{RetryStart: time.Millisecond}
	k := kind()
	k.client, k.apiReader, k.options = cached, live, o
	k.claims = claimprotection.New(cached, live, nil, 0)
	r := snapshotcontroller.NewReconciler(cached, live, k, kube.NewEventsWithRecorder(recorder), o)
	if _, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(about)}); err != nil {
		t.Fatal(err)
	}
	for len(recorder.Events) > 0 {
		said = append(said, <-recorder.Events)
	}
	return said
}

func isDeleted(t *testing.T, api client.Client, content *groupv1.VolumeGroupSnapshotContent) {
	t.Helper()
	left := &groupv1.VolumeGroupSnapshotContent{}
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(content), left); err != nil {
		t.Fatal(err)
	}
	if left.DeletionTimestamp == nil || left.Annotations[snapshot.Group.BeingDeleted] == "" {
		t.Error("the group is gone, and its content will never be deleted")
	}
}

func cluster(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(snapshotv1.AddToScheme(scheme), groupv1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithIndex(&snapshotv1.VolumeSnapshot{}, membersByGroup, ownerKey).
		WithIndex(&snapshotv1.VolumeSnapshot{}, "source-claim", func(client.Object) []string { return nil }).
		WithIndex(&corev1.PersistentVolumeClaim{}, "restores", func(o client.Object) []string {
			return snapshotcontroller.SnapshotSources(o.(*corev1.PersistentVolumeClaim))
		}).
		WithIndex(&groupv1.VolumeGroupSnapshot{}, groupsNotTaken, notTaken).
		WithIndex(&corev1.PersistentVolumeClaim{}, protectedClaimsIndex, protectedClaimKey).
		WithIndex(&corev1.PersistentVolume{}, volumesByHandle, volumeHandleKey).Build()
}

func (c *lagging) List(ctx context.Context, list client.ObjectList, o ...client.ListOption) error {
	err := c.Client.List(ctx, list, o...)
	if members, ok := list.(*snapshotv1.VolumeSnapshotList); ok && c.unrestored {
		for i := range members.Items {
			members.Items[i].Finalizers = nil
		}
	}
	return err
}

// lagging is a client with a stale cache.
type lagging struct {
	client.Client
	content func(*groupv1.VolumeGroupSnapshotContent) error // changes a content that was read
	looks   int                                             // how often it shows a group; 0 for always
	// unrestored hides the finalizers of members.
	unrestored bool
	looked     int
}

func (c *lagging) Get(ctx context.Context, key client.ObjectKey, into client.Object, o ...client.GetOption) error {
	err := c.Client.Get(ctx, key, into, o...)
	switch it := into.(type) {
	case *groupv1.VolumeGroupSnapshotContent:
		if err == nil && c.content != nil {
			return c.content(it)
		}
	case *snapshotv1.VolumeSnapshot:
		if c.unrestored {
			it.Finalizers = nil
		}
	case *groupv1.VolumeGroupSnapshot:
		if c.looked++; c.looks > 0 && c.looked > c.looks {
			return apierrors.NewNotFound(groupv1.Resource("volumegroupsnapshots"), key.Name)
		}
	}
	return err
}
