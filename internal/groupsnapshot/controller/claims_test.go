package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/internal/snapshot/claimprotection"
	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

// protected is a group that is about to get its content.
func protected(s *scene) {
	s.group.Finalizers = []string{snapshot.GroupBoundFinalizer}
	for i := range s.sources {
		s.sources[i].Claim.Labels = s.group.Spec.Source.Selector.MatchLabels
	}
}

func taken(s *scene) {
	s.content.Status = &groupv1.VolumeGroupSnapshotContentStatus{VolumeGroupSnapshotHandle: ptr.To("h")}
}

func TestAClaimIsNeededUntilItsGroupIsTaken(t *testing.T) {
	tests := map[string]struct {
		changes []func(*scene)
		want    bool
	}{
		"a group without our finalizer":                      {nil, false},
		"a group that is about to get its content":           {[]func(*scene){protected}, true},
		"a group that selects other claims":                  {[]func(*scene){protected, func(s *scene) { s.sources[0].Claim.Labels = nil }}, false},
		"a group that was deleted before it got its content": {[]func(*scene){protected, deleted}, false},
		"a group with its content":                           {[]func(*scene){made}, true},
		"a group with its content that is being deleted":     {[]func(*scene){made, deleted}, true},
		"a group with a content of other claims":             {[]func(*scene){made, func(s *scene) { s.content.Spec.Source.VolumeHandles = []string{"log"} }}, false},
		"a group that is taken":                              {[]func(*scene){made, taken}, false},
		"a group that is taken, as its own status shows":     {[]func(*scene){made, groupTaken}, false},
		"a pre-provisioned group":                            {[]func(*scene){imported}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			for _, c := range tt.changes {
				c(s)
			}
			if s.group.DeletionTimestamp != nil {
				s.group.DeletionTimestamp = ptr.To(metav1.Now())
			}
			if s.group.Status != nil {
				s.group.Status.CreationTime = ptr.To(metav1.Now())
			}
			api := cluster(t, s.objects()...)
			k := kind()
			k.client, k.apiReader = api, api
			if got, err := k.neededBy(t.Context(), s.sources[0].Claim); err != nil || (got != "") != tt.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// The cache may not show that a group has just got its finalizer.
func TestAClaimStaysProtectedForAGroupWhoseFinalizerTheCacheDoesNotShow(t *testing.T) {
	s := fresh()
	k := kind()
	k.client = cluster(t, s.objects()...)
	for _, o := range s.objects() {
		o.SetResourceVersion("")
	}
	protected(s)
	k.apiReader = cluster(t, s.objects()...)
	if got, err := k.neededBy(t.Context(), s.sources[0].Claim); err != nil || got == "" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestTheClaimsOfAGroupAreProtectedBeforeItHasItsContent(t *testing.T) {
	s := fresh()
	protected(s)
	api := cluster(t, append(s.objects(), s.class)...)
	step(t, s.group, api, api)
	if err := api.Get(t.Context(), client.ObjectKey{Name: contentName(s.group)}, &groupv1.VolumeGroupSnapshotContent{}); err != nil {
		t.Fatal(err)
	}
	for i := range s.sources {
		claim := &corev1.PersistentVolumeClaim{}
		if err := api.Get(t.Context(), client.ObjectKeyFromObject(s.sources[i].Claim), claim); err != nil || len(claim.Finalizers) == 0 {
			t.Errorf("claim %s is not protected, %v", claim.Name, err)
		}
	}
}

// The events of groups and of their contents wake the claims.
func TestTheFinalizersOfClaimsAreRemovedWithTheNeedOfTheirGroup(t *testing.T) {
	on := func(then ...func(*scene)) []func(*scene) { return then }
	tests := map[string]struct {
		from func(*scene)
		then []func(*scene) // what happens
		want string         // those of the claims data and log without a finalizer
	}{
		"the group is taken": {made, on(taken), "data log"},
		"the group is taken, and its content is being deleted": {made, on(func(s *scene) { taken(s); s.content.DeletionTimestamp = ptr.To(metav1.Now()) }), "data log"},
		"an unrelated change":                                       {made, on(func(s *scene) { s.content.Labels = map[string]string{"a": "b"} }), ""},
		"the group is deleted before it is taken":                   {protected, on(func(s *scene) { s.group.DeletionTimestamp = ptr.To(metav1.Now()) }), "data log"},
		"the group is gone":                                         {protected, on(func(s *scene) { s.group = nil }), "data log"},
		"the group gets its content":                                {protected, on(made), ""},
		"the content is not of a claim":                             {protected, on(func(s *scene) { made(s); s.content.Spec.Source.VolumeHandles = []string{"log"} }), "data"},
		"the group does not select a claim any more":                {protected, on(relabelled), "data"},
		"the group does not select a claim of its content any more": {made, on(relabelled), ""},
		"the group is taken, and did not select a claim any more": {func(s *scene) {
			protected(s)
			made(s)
			relabelled(s)
			s.content.Spec.Source.VolumeHandles = []string{"log"}
		}, on(taken), "data log"},
		"the group is taken, and a volume has lost its claimRef": {func(s *scene) { made(s); s.sources[0].Volume.Spec.ClaimRef = nil }, on(taken), "data log"},
		"the group is taken, and a volume is gone":               {func(s *scene) { made(s); s.sources[0].Claim.Spec.VolumeName = "gone" }, on(taken), "data log"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			tt.from(s)
			for i := range s.sources {
				s.sources[i].Claim.Finalizers = []string{snapshot.ClaimFinalizer}
			}
			before := s.copied()
			for _, then := range tt.then {
				then(s)
			}
			if got := s.freed(t, before); got != tt.want {
				t.Errorf("the claims %q have no finalizer", got)
			}
		})
	}
}

// relabelled removes the labels of claim data that the group selects.
func relabelled(s *scene) { s.sources[0].Claim.Labels = nil }

// copied are copies of the objects.
func (s *scene) copied() map[string]client.Object {
	all := map[string]client.Object{}
	for _, o := range s.objects() {
		if o != nil {
			all[fmt.Sprintf("%T %s", o, o.GetName())] = o.DeepCopyObject().(client.Object)
		}
	}
	return all
}

// freed reconciles the claims that the changes wake, and names those without a finalizer.
func (s *scene) freed(t *testing.T, before map[string]client.Object) string {
	t.Helper()
	var there []client.Object
	for _, o := range s.objects() {
		if o.GetDeletionTimestamp() != nil && len(o.GetFinalizers()) == 0 {
			o.SetFinalizers([]string{"somebody's"}) // The API server deletes such objects.
		}
		there = append(there, o)
	}
	now := s.copied() // Before they get a version.
	api := cluster(t, there...)
	k := kind()
	k.client, k.apiReader, k.options = api, api, &snapshotcontroller.Options{}
	k.claims = claimprotection.New(api, api, nil, 0, groupsOf(k))
	for _, one := range k.woken(t, before, now) {
		if _, err := k.claims.Reconcile(t.Context(), one); err != nil {
			t.Fatal(err)
		}
	}
	var free []string
	for i := range s.sources {
		claim := &corev1.PersistentVolumeClaim{}
		if err := api.Get(t.Context(), client.ObjectKeyFromObject(s.sources[i].Claim), claim); err != nil {
			t.Fatal(err)
		}
		if len(claim.Finalizers) == 0 {
			free = append(free, claim.Name)
		}
	}
	return strings.Join(free, " ")
}

// groupsOf are the controllers of group snapshots, of which this is the kind.
func groupsOf(k *groupKind) *Groups {
	g := &Groups{options: &snapshotcontroller.Options{Groups: true}}
	g.kind.Store(k)
	return g
}

// woken are the claims that the changes wake.
func (k *groupKind) woken(t *testing.T, before, now map[string]client.Object) (requests []reconcile.Request) {
	t.Helper()
	for _, change := range changes(before, now) {
		switch change.of().(type) {
		case *groupv1.VolumeGroupSnapshotContent:
			if change.passes(contentCreatedOrTaken()) {
				requests = append(requests, k.protectedClaimsOfContent(t.Context(), change.of())...)
			}
		case *groupv1.VolumeGroupSnapshot:
			if change.passes(noLongerNeedsClaims()) {
				requests = append(requests, k.protectedClaimsOfGroup(t.Context(), change.of())...)
			}
		case *corev1.PersistentVolumeClaim:
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(change.of())}) // See TestAProtectedClaimIsRecheckedLater.
		}
	}
	return requests
}

// A change is that of one object; before or now may be nil.
type change struct{ before, now client.Object }

func changes(before, now map[string]client.Object) (all []change) {
	for name, o := range now {
		if !equality.Semantic.DeepEqual(o, before[name]) {
			all = append(all, change{before[name], o})
		}
	}
	for name, o := range before {
		if now[name] == nil {
			all = append(all, change{o, nil})
		}
	}
	return all
}

func (c change) of() client.Object {
	if c.now != nil {
		return c.now
	}
	return c.before
}

func (c change) passes(p predicate.Predicate) bool {
	switch {
	case c.before == nil:
		return p.Create(event.CreateEvent{Object: c.now})
	case c.now == nil:
		return p.Delete(event.DeleteEvent{Object: c.before})
	default:
		return p.Update(event.UpdateEvent{ObjectOld: c.before, ObjectNew: c.now})
	}
}

// The cache may not show a content that was just created.
func TestAClaimStaysProtectedForAContentThatTheCacheDoesNotShow(t *testing.T) {
	for name, then := range map[string]func(*scene){"the group does not select the claim any more": relabelled, "the group is being deleted": deleted} {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			protected(s)
			then(s)
			if s.group.DeletionTimestamp != nil {
				s.group.DeletionTimestamp = ptr.To(metav1.Now())
			}
			k := kind()
			k.client = cluster(t, s.objects()...)
			for _, o := range s.objects() {
				o.SetResourceVersion("")
			}
			made(s)
			k.apiReader = cluster(t, s.objects()...)
			if got, err := k.neededBy(t.Context(), s.sources[0].Claim); err != nil || got == "" {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// The locks of the claims are held until the content exists: until then only the selector
// shows which claims the group needs.
func TestAClaimStaysProtectedUntilTheContentThatItWasSelectedForExists(t *testing.T) {
	s := fresh()
	protected(s)
	s.sources[0].Claim.UID, s.sources[1].Claim.UID = "uid-data", "uid-log"
	api := cluster(t, s.objects()...)
	k := kind()
	k.client, k.apiReader = api, api
	claims := claimprotection.New(api, api, nil, 0, groupsOf(k))
	done, err := claims.AddFinalizers(t.Context(), s.sources)
	if err != nil {
		t.Fatal(err)
	}
	data := &corev1.PersistentVolumeClaim{}
	key := client.ObjectKeyFromObject(s.sources[0].Claim)
	if err := api.Get(t.Context(), key, data); err != nil {
		t.Fatal(err)
	}
	data.Labels = nil
	if err := api.Update(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := claims.Reconcile(ctx, reconcile.Request{NamespacedName: key}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the claim is not locked: %v", err)
	}
	made(s)
	if err := api.Create(t.Context(), s.content); err != nil {
		t.Fatal(err)
	}
	done()
	if _, err := claims.Reconcile(t.Context(), reconcile.Request{NamespacedName: key}); err != nil {
		t.Fatal(err)
	}
	if err := api.Get(t.Context(), key, data); err != nil || len(data.Finalizers) == 0 {
		t.Errorf("the claim is not protected, though the content is of it, %v", err)
	}
}

// A group that cannot protect all of its claims has protected some of them.
func TestAClaimThatWasProtectedInVainLosesItsFinalizerWhenTheSelectorMatchesOthers(t *testing.T) {
	s := fresh()
	protected(s)
	s.sources[0].Claim.UID, s.sources[1].Claim.UID = "uid-data", "uid-log"
	there := slices.DeleteFunc(s.objects(), func(o client.Object) bool { return o == client.Object(s.sources[1].Claim) })
	s.sources[1].Claim.Finalizers = []string{snapshot.ClaimFinalizer} // So that it is read from the API server, where it is gone.
	api := cluster(t, there...)
	if _, err := claimprotection.New(api, api, nil, 0).AddFinalizers(t.Context(), s.sources); !kube.IsConflict(err) {
		t.Fatalf("got %v", err)
	}
	key := client.ObjectKeyFromObject(s.sources[0].Claim)
	if err := api.Get(t.Context(), key, s.sources[0].Claim); err != nil || len(s.sources[0].Claim.Finalizers) == 0 {
		t.Fatalf("no claim is protected, %v", err)
	}
	s.sources[1].Claim.ResourceVersion = ""
	s.sources = s.sources[:1]
	for _, o := range s.objects() {
		o.SetResourceVersion("")
	}
	before := s.copied()
	relabelled(s)
	if got := s.freed(t, before); got != "data" {
		t.Errorf("the claims %q have no finalizer", got)
	}
}

// The CRDs may be installed before the controllers of groups run: the API server may have
// failed when these were to be set up.
func TestAClaimStaysProtectedForAGroupBeforeGroupsAreWatched(t *testing.T) {
	none := &meta.NoKindMatchError{}
	forbidden := apierrors.NewForbidden(groupv1.Resource("volumegroupsnapshots"), "", errors.New("not yet"))
	type check struct {
		listErr error         // of the API server
		after   time.Duration // since the start
		kept    bool
		fails   bool
	}
	tests := map[string]struct {
		from   func(*scene)
		checks []check
	}{
		"a group with its content":                  {made, []check{{nil, 0, true, false}}},
		"a group that is about to get its content":  {protected, []check{{nil, 0, true, false}}},
		"a group that is taken":                     {func(s *scene) { made(s); taken(s) }, []check{{nil, 0, false, false}}},
		"a group of other claims":                   {func(s *scene) { made(s); s.content.Spec.Source.VolumeHandles = nil }, []check{{nil, 0, false, false}}},
		"a failure, and then a response":            {made, []check{{errors.New("busy"), 0, true, true}, {nil, time.Second, true, false}}},
		"CRDs that are not installed":               {made, []check{{none, 0, false, false}}},
		"no permission while the API server starts": {made, []check{{forbidden, 0, true, false}, {nil, 5 * time.Second, true, false}}},
		"no permission for long":                    {made, []check{{forbidden, 0, true, false}, {forbidden, forbiddenTimeout, false, false}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			tt.from(s)
			s.sources[0].Claim.Finalizers = []string{snapshot.ClaimFinalizer}
			live := &failingLists{Client: cluster(t, s.objects()...)}
			start := time.Now()
			g := New(live, &snapshotcontroller.Options{Groups: true})
			c := claimprotection.New(live, live, nil, time.Second, g)
			for i, a := range tt.checks {
				g.uncached.now = func() time.Time { return start.Add(a.after) }
				live.err = a.listErr
				key := client.ObjectKeyFromObject(s.sources[0].Claim)
				result, err := c.Reconcile(t.Context(), reconcile.Request{NamespacedName: key})
				if (err != nil) != a.fails {
					t.Errorf("%d: %v", i, err)
				}
				claim := &corev1.PersistentVolumeClaim{}
				if err := live.Get(t.Context(), key, claim); err != nil {
					t.Fatal(err)
				}
				if kept := len(claim.Finalizers) > 0; kept != a.kept {
					t.Errorf("%d: the claim is protected: %v", i, kept)
				}
				if a.kept && err == nil && result.RequeueAfter == 0 {
					t.Errorf("%d: the claim is not rechecked", i)
				}
			}
		})
	}
}

// Without the CRDs there is no request for each claim.
func TestTheAbsenceOfGroupsIsCached(t *testing.T) {
	now := time.Now()
	live := &failingLists{Client: cluster(t), err: &meta.NoKindMatchError{}}
	u := &uncachedGroups{apiReader: live, now: func() time.Time { return now }}
	for range 10 {
		if got, err := u.neededBy(t.Context(), source("data").Claim); err != nil || got != "" {
			t.Fatal(got, err)
		}
	}
	if live.listed != 1 {
		t.Errorf("groups were listed %d times", live.listed)
	}
	now = now.Add(absentFor)
	if _, err := u.neededBy(t.Context(), source("data").Claim); err != nil || live.listed != 2 {
		t.Errorf("groups were listed %d times, %v", live.listed, err)
	}
}

// failingLists is an API server that fails to list groups.
type failingLists struct {
	client.Client
	err    error
	listed int
}

func (c *failingLists) List(ctx context.Context, list client.ObjectList, o ...client.ListOption) error {
	if _, ok := list.(*groupv1.VolumeGroupSnapshotList); ok {
		c.listed++
		if c.err != nil {
			return c.err
		}
	}
	return c.Client.List(ctx, list, o...)
}

// objects are the API objects of the scene.
func (s *scene) objects() []client.Object {
	var all []client.Object
	if s.group != nil {
		all = append(all, s.group)
	}
	if s.content != nil {
		all = append(all, s.content)
	}
	for i := range s.sources {
		all = append(all, s.sources[i].Claim, s.sources[i].Volume)
	}
	return all
}
