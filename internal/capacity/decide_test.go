package capacity

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// summary describes the changes in a line.
func (s changes) summary() string {
	var all strings.Builder
	if s.create != nil {
		fmt.Fprintf(&all, "create %s; ", s.create.Capacity)
	}
	if s.update != nil {
		fmt.Fprintf(&all, "update %s from %s to %s; ", s.update.Name, s.existing.Capacity, s.update.Capacity)
	}
	for i := range s.obsolete {
		fmt.Fprintf(&all, "remove %s; ", s.obsolete[i].Name)
	}
	return all.String()
}

func TestDecide(t *testing.T) {
	owner := func(uid string) *metav1.OwnerReference {
		return &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "driver", UID: types.UID(uid), Controller: ptr.To(true)}
	}
	there := func(name string, bytes int64) storagev1.CSIStorageCapacity { return *object(name, "fast", "a", bytes) }
	owned := func(o storagev1.CSIStorageCapacity, by *metav1.OwnerReference) storagev1.CSIStorageCapacity {
		o.OwnerReferences = []metav1.OwnerReference{*by}
		return o
	}
	tests := map[string]struct {
		change func(*state)
		want   string
	}{
		"a wanted pair gets an object":           {func(*state) {}, "create 100; "},
		"also without free capacity":             {func(s *state) { s.response = capacityResponse(0, 0) }, "create 0; "},
		"an object that is up to date stays":     {func(s *state) { s.objects = append(s.objects, there("x", 100)) }, ""},
		"an object is updated":                   {func(s *state) { s.objects = append(s.objects, there("x", 99)) }, "update x from 99 to 100; "},
		"an object without capacity gets one":    {func(s *state) { s.objects = append(s.objects, there("x", 1)); s.objects[0].Capacity = nil }, "update x from <nil> to 100; "},
		"a new maximum volume size is an update": {func(s *state) { s.objects = append(s.objects, there("x", 100)); s.response = capacityResponse(100, 7) }, "update x from 100 to 100; "},
		"a maximum volume size that is gone is an update": {func(s *state) {
			s.objects = append(s.objects, there("x", 100))
			s.objects[0].MaximumVolumeSize = resource.NewQuantity(7, resource.BinarySI)
		}, "update x from 100 to 100; "},
		"the same quantity in another unit is no update": {func(s *state) {
			s.objects = append(s.objects, there("x", 1))
			s.response = capacityResponse(1<<30, 0)
			s.objects[0].Capacity = ptr.To(resource.MustParse("1024Mi"))
		}, ""},
		"of several objects the first stays": {func(s *state) { s.objects = append(s.objects, there("x", 100), there("y", 100)) }, "remove y; "},
		"and is updated":                     {func(s *state) { s.objects = append(s.objects, there("x", 9), there("y", 100)) }, "update x from 9 to 100; remove y; "},
		"a new owner is an update": {func(s *state) {
			s.owner, s.objects = owner("b"), append(s.objects, owned(there("x", 100), owner("a")))
		}, "update x from 100 to 100; "},
		"the same owner is no update": {func(s *state) {
			s.owner, s.objects = owner("b"), append(s.objects, owned(there("x", 100), owner("b")))
		}, ""},
		"an obsolete owner is removed": {func(s *state) {
			s.objects = append(s.objects, owned(there("x", 100), owner("a")))
		}, "update x from 100 to 100; "},
		"without the class all objects are obsolete":   {func(s *state) { s.class = nil; s.objects = append(s.objects, there("x", 1), there("y", 1)) }, "remove x; remove y; "},
		"without the segment all objects are obsolete": {func(s *state) { s.segment = nil; s.objects = append(s.objects, there("x", 1)) }, "remove x; "},
		"without objects nothing is obsolete":          {func(s *state) { s.segment = nil }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := state{pair: pair{"fast", "zone=a"}, class: class("fast"), segment: map[string]string{"zone": "a"}, response: capacityResponse(100, 0)}
			tt.change(&s)
			if got := decide(s, options()).summary(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestUpdatedOwners(t *testing.T) {
	ref := func(name string, controls bool) metav1.OwnerReference {
		return metav1.OwnerReference{Kind: "Pod", Name: name, UID: types.UID(name), Controller: &controls}
	}
	plain := metav1.OwnerReference{Kind: "ConfigMap", Name: "other", UID: "other"}
	type refs = []metav1.OwnerReference
	tests := map[string]struct {
		there, should, want refs
		right               bool
	}{
		"no owner":                                {nil, nil, nil, true},
		"the desired controller stays":            {refs{plain, ref("a", true)}, refs{ref("a", true)}, refs{plain, ref("a", true)}, true},
		"another controller is replaced":          {refs{ref("a", true), plain}, refs{ref("b", true)}, refs{plain, ref("b", true)}, false},
		"a missing controller is added":           {refs{plain}, refs{ref("b", true)}, refs{plain, ref("b", true)}, false},
		"an obsolete controller is removed":       {refs{ref("a", true)}, nil, refs{}, false},
		"an owner that is not a controller stays": {refs{ref("a", false)}, nil, refs{ref("a", false)}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, right := updatedOwners(tt.there, tt.should)
			if diff := cmp.Diff(tt.want, got); diff != "" || right != tt.right {
				t.Errorf("right: %t; %s", right, diff)
			}
		})
	}
}

// Each pair is polled once in each interval, and the polls are spread over it.
func TestPollsAreSpread(t *testing.T) {
	const interval, slots = time.Minute, 60
	start := time.Date(2026, 1, 1, 0, 0, 17, 0, time.UTC)
	var polls [slots]int
	for i := range 3680 {
		p := pair{fmt.Sprint("class-", i%2), fmt.Sprint("host=node-", i/2)}
		after := untilPoll(p, interval, start)
		if after <= 0 || after > interval {
			t.Fatalf("%v is polled after %s", p, after)
		}
		if again := untilPoll(p, interval, start.Add(after)); again != interval {
			t.Fatalf("%v is polled after %s, then after %s", p, after, again)
		}
		polls[min(int(after*slots/interval), slots-1)]++
	}
	for second, n := range polls {
		if n > 2*3680/slots {
			t.Errorf("%d polls fall into second %d", n, second)
		}
	}
}
