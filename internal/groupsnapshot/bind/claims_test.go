package bind

import (
	"testing"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/internal/snapshot/bind"
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
			k.client, k.live = api, api
			if got, err := k.Needs(t.Context(), s.sources[0].Claim); err != nil || got != tt.want {
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
	k.live = cluster(t, s.objects()...)
	if got, err := k.Needs(t.Context(), s.sources[0].Claim); err != nil || !got {
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

func TestTheClaimsOfAGroupGoFree(t *testing.T) {
	tests := map[string]struct {
		free func(k *group, s *scene) error
		from func(*scene)
		want bool
	}{
		"when it is cut": {func(k *group, s *scene) error {
			_, err := k.Gather(t.Context(), k.Read(s.group), k.ReadContent(s.content))
			return err
		}, func(s *scene) { made(s); cut(s) }, true},
		"also if its content is on its way out": {func(k *group, s *scene) error {
			s.content.DeletionTimestamp = ptr.To(metav1.Now())
			_, err := k.Gather(t.Context(), k.Read(s.group), k.ReadContent(s.content))
			return err
		}, func(s *scene) { made(s); cut(s) }, true},
		"not before": {func(k *group, s *scene) error {
			_, err := k.Gather(t.Context(), k.Read(s.group), k.ReadContent(s.content))
			return err
		}, made, false},
		"when it is gone": {func(k *group, s *scene) error {
			return k.Gone(t.Context(), client.ObjectKeyFromObject(s.group))
		}, func(s *scene) { s.group.Finalizers = nil }, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			tt.from(s)
			for i := range s.sources {
				s.sources[i].Claim.Finalizers = []string{snapshot.ClaimFinalizer}
				s.sources[i].Volume.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "ns", Name: s.sources[i].Name, UID: s.sources[i].Claim.UID}
			}
			api := cluster(t, s.objects()...)
			k := kind()
			k.client, k.live = api, api
			k.singles = &bind.Groups{}
			k.singles.WorkedOnBy(k)
			k.singles.Claims = bind.NewClaims(api, api, k.singles, 0)
			if err := tt.free(k, s); err != nil {
				t.Fatal(err)
			}
			for i := range s.sources {
				claim := &corev1.PersistentVolumeClaim{}
				if err := api.Get(t.Context(), client.ObjectKeyFromObject(s.sources[i].Claim), claim); err != nil {
					t.Fatal(err)
				}
				if free := len(claim.Finalizers) == 0; free != tt.want {
					t.Errorf("that claim %s is free is %v", claim.Name, free)
				}
			}
		})
	}
}

// objects are those that are there.
func (s *scene) objects() []client.Object {
	all := []client.Object{s.group}
	if s.content != nil {
		all = append(all, s.content)
	}
	for i := range s.sources {
		all = append(all, s.sources[i].Claim, s.sources[i].Volume)
	}
	return all
}
