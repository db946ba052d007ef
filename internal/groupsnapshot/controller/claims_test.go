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

func cut(s *scene) {
	s.content.Status = &groupv1.VolumeGroupSnapshotContentStatus{VolumeGroupSnapshotHandle: ptr.To("h")}
}

func TestAClaimIsNeededUntilItsGroupIsCut(t *testing.T) {
	tests := map[string]struct {
		changes []func(*scene)
		want    bool
	}{
		"a group about which nothing has begun":          {nil, false},
		"one that is about to be made":                   {[]func(*scene){protected}, true},
		"one that selects others":                        {[]func(*scene){protected, func(s *scene) { s.sources[0].Claim.Labels = nil }}, false},
		"one that was deleted before it was made":        {[]func(*scene){protected, deleted}, false},
		"one that is being made":                         {[]func(*scene){made}, true},
		"one that is being made, and is deleted":         {[]func(*scene){made, deleted}, true},
		"one that is being made of others":               {[]func(*scene){made, func(s *scene) { s.content.Spec.Source.VolumeHandles = []string{"log"} }}, false},
		"one that is cut":                                {[]func(*scene){made, cut}, false},
		"one that is cut, as its own status already has": {[]func(*scene){made, wasCut}, false},
		"one that was there before":                      {[]func(*scene){imported}, false},
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
			if got, err := k.needsClaim(t.Context(), s.sources[0].Claim); err != nil || got != tt.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// The cache may not show that a group has just been protected.
func TestAClaimIsKeptForAGroupThatTheCacheDoesNotShowAsProtected(t *testing.T) {
	s := fresh()
	k := kind()
	k.client = cluster(t, s.objects()...)
	for _, o := range s.objects() {
		o.SetResourceVersion("")
	}
	protected(s)
	k.apiReader = cluster(t, s.objects()...)
	if got, err := k.needsClaim(t.Context(), s.sources[0].Claim); err != nil || !got {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestTheClaimsOfAGroupAreKeptBeforeItHasItsContent(t *testing.T) {
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
			t.Errorf("nothing keeps claim %s, %v", claim.Name, err)
		}
	}
}

// A claim is freed by whoever asks at the right moment, which the events of groups and
// of their contents tell.
func TestTheClaimsOfAGroupGoFree(t *testing.T) {

	on := func(then ...func(*scene)) []func(*scene) { return then }
	tests := map[string]struct {
		from func(*scene)
		then []func(*scene) // what happens
		want string         // of the claims data and log, which are free
	}{
		"when it is cut":                         {made, on(cut), "data log"},
		"also if its content is on its way out":  {made, on(func(s *scene) { cut(s); s.content.DeletionTimestamp = ptr.To(metav1.Now()) }), "data log"},
		"not before":                             {made, on(func(s *scene) { s.content.Labels = map[string]string{"a": "b"} }), ""},
		"when it is deleted, and never was cut":  {protected, on(func(s *scene) { s.group.DeletionTimestamp = ptr.To(metav1.Now()) }), "data log"},
		"when it is gone":                        {protected, on(func(s *scene) { s.group = nil }), "data log"},
		"not because it gets a content":          {protected, on(made), ""},
		"one that the content is not of":         {protected, on(func(s *scene) { made(s); s.content.Spec.Source.VolumeHandles = []string{"log"} }), "data"},
		"one that it selects no more":            {protected, on(relabelled), "data"},
		"not one that it selected when it began": {made, on(relabelled), ""},
		"one that it selected no more, at the cut": {func(s *scene) {
			protected(s)
			made(s)
			relabelled(s)
			s.content.Spec.Source.VolumeHandles = []string{"log"}
		}, on(cut), "data log"},
		"one whose volume forgot it, at the cut": {func(s *scene) { made(s); s.sources[0].Volume.Spec.ClaimRef = nil }, on(cut), "data log"},
		"one whose volume is gone, at the cut":   {func(s *scene) { made(s); s.sources[0].Claim.Spec.VolumeName = "gone" }, on(cut), "data log"},
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
				t.Errorf("the claims %q are free", got)
			}
		})
	}
}

// relabelled takes claim data out of the group's selector.
func relabelled(s *scene) { s.sources[0].Claim.Labels = nil }

// copied is what is there now.
func (s *scene) copied() map[string]client.Object {
	all := map[string]client.Object{}
	for _, o := range s.objects() {
		if o != nil {
			all[fmt.Sprintf("%T %s", o, o.GetName())] = o.DeepCopyObject().(client.Object)
		}
	}
	return all
}

// freed has the claims woken by all that has changed, and names those that are free then.
func (s *scene) freed(t *testing.T, before map[string]client.Object) string {
	t.Helper()
	var there []client.Object
	for _, o := range s.objects() {
		if o.GetDeletionTimestamp() != nil && len(o.GetFinalizers()) == 0 {
			o.SetFinalizers([]string{"somebody's"}) // The API has no other such objects.
		}
		there = append(there, o)
	}
	now := s.copied() // Before they get a version.
	api := cluster(t, there...)
	k := kind()
	k.client, k.apiReader, k.options = api, api, &snapshotcontroller.Options{}
	k.claims = claimprotection.New(api, api, 0, groupsOf(k))
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

// woken are the claims that are woken by what has changed.
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
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(change.of())}) // See TestAClaimThatIsKeptIsLookedAtLater.
		}
	}
	return requests
}

// A change is of one object; before or now may be missing.
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

// The cache may not show the content for which a claim was selected, or made just
// before the group was deleted.
func TestAClaimIsKeptForAContentThatTheCacheDoesNotShow(t *testing.T) {
	for name, then := range map[string]func(*scene){"which it selects no more": relabelled, "which is deleted": deleted} {
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
			if got, err := k.needsClaim(t.Context(), s.sources[0].Claim); err != nil || !got {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// Who holds claims for a group has nobody free them before its content is there: until
// then only its selector says what it is of.
func TestAClaimIsNotFreedBeforeTheContentThatItWasSelectedForIsMade(t *testing.T) {
	s := fresh()
	protected(s)
	s.sources[0].Claim.UID, s.sources[1].Claim.UID = "uid-data", "uid-log"
	api := cluster(t, s.objects()...)
	k := kind()
	k.client, k.apiReader = api, api
	claims := claimprotection.New(api, api, 0, groupsOf(k))
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
		t.Errorf("nobody keeps others from freeing it: %v", err)
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
		t.Errorf("the claim is freed though the group is made of it, %v", err)
	}
}

// A group that cannot protect all of its claims has protected some.
func TestAClaimThatWasProtectedInVainIsFreedWhenTheSelectorFindsOthers(t *testing.T) {
	s := fresh()
	protected(s)
	s.sources[0].Claim.UID, s.sources[1].Claim.UID = "uid-data", "uid-log"
	there := slices.DeleteFunc(s.objects(), func(o client.Object) bool { return o == client.Object(s.sources[1].Claim) })
	s.sources[1].Claim.Finalizers = []string{snapshot.ClaimFinalizer} // So that it is looked for, and it is gone.
	api := cluster(t, there...)
	if _, err := claimprotection.New(api, api, 0).AddFinalizers(t.Context(), s.sources); !kube.IsConflict(err) {
		t.Fatalf("got %v", err)
	}
	key := client.ObjectKeyFromObject(s.sources[0].Claim)
	if err := api.Get(t.Context(), key, s.sources[0].Claim); err != nil || len(s.sources[0].Claim.Finalizers) == 0 {
		t.Fatalf("nothing is protected, %v", err)
	}
	s.sources[1].Claim.ResourceVersion = ""
	s.sources = s.sources[:1]
	for _, o := range s.objects() {
		o.SetResourceVersion("")
	}
	before := s.copied()
	relabelled(s)
	if got := s.freed(t, before); got != "data" {
		t.Errorf("the claims %q are free", got)
	}
}

// The kinds of groups may be there, and their controllers not yet: the API server did
// not answer when they were to be set up.
func TestAClaimIsKeptForAGroupBeforeGroupsAreWatched(t *testing.T) {
	none := &meta.NoKindMatchError{}
	forbidden := apierrors.NewForbidden(groupv1.Resource("volumegroupsnapshots"), "", errors.New("not yet"))
	type ask struct {
		answers error         // of the API server
		after   time.Duration // since the start
		kept    bool
		fails   bool
	}
	tests := map[string]struct {
		from func(*scene)
		asks []ask
	}{
		"a group that is being made":       {made, []ask{{nil, 0, true, false}}},
		"one that is about to be":          {protected, []ask{{nil, 0, true, false}}},
		"one that is cut":                  {func(s *scene) { made(s); cut(s) }, []ask{{nil, 0, false, false}}},
		"one that is of others":            {func(s *scene) { made(s); s.content.Spec.Source.VolumeHandles = nil }, []ask{{nil, 0, false, false}}},
		"no answer, and then one":          {made, []ask{{errors.New("busy"), 0, true, true}, {nil, time.Second, true, false}}},
		"kinds that are not installed":     {made, []ask{{none, 0, false, false}}},
		"no right while the server starts": {made, []ask{{forbidden, 0, true, false}, {nil, 5 * time.Second, true, false}}},
		"no right for good":                {made, []ask{{forbidden, 0, true, false}, {forbidden, forbiddenTimeout, false, false}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			tt.from(s)
			s.sources[0].Claim.Finalizers = []string{snapshot.ClaimFinalizer}
			live := &unanswering{Client: cluster(t, s.objects()...)}
			start := time.Now()
			g := New(live, &snapshotcontroller.Options{Groups: true})
			c := claimprotection.New(live, live, time.Second, g)
			for i, a := range tt.asks {
				g.uncached.now = func() time.Time { return start.Add(a.after) }
				live.err = a.answers
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
					t.Errorf("%d: that the claim is kept is %v", i, kept)
				}
				if a.kept && err == nil && result.RequeueAfter == 0 {
					t.Errorf("%d: nobody looks at the claim again", i)
				}
			}
		})
	}
}

// Where the kinds are not installed that is not asked for each claim.
func TestThatThereAreNoGroupsIsAskedSeldom(t *testing.T) {
	now := time.Now()
	live := &unanswering{Client: cluster(t), err: &meta.NoKindMatchError{}}
	u := &uncachedGroups{apiReader: live, now: func() time.Time { return now }}
	for range 10 {
		if got, err := u.needsClaim(t.Context(), source("data").Claim); err != nil || got {
			t.Fatal(got, err)
		}
	}
	if live.asked != 1 {
		t.Errorf("it was asked %d times", live.asked)
	}
	now = now.Add(absentFor)
	if _, err := u.needsClaim(t.Context(), source("data").Claim); err != nil || live.asked != 2 {
		t.Errorf("it was asked %d times, %v", live.asked, err)
	}
}

// unanswering is an API server that does not say which groups there are.
type unanswering struct {
	client.Client
	err   error
	asked int
}

func (c *unanswering) List(ctx context.Context, list client.ObjectList, o ...client.ListOption) error {
	if _, ok := list.(*groupv1.VolumeGroupSnapshotList); ok {
		c.asked++
		if c.err != nil {
			return c.err
		}
	}
	return c.Client.List(ctx, list, o...)
}

// objects are those that are there.
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
