package provision

import (
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestIsPermanentRejection(t *testing.T) {
	volumes := schema.GroupResource{Resource: "persistentvolumes"}
	tests := map[string]struct {
		err  error
		want bool
	}{
		"an object that is invalid":                   {apierrors.NewInvalid(schema.GroupKind{Kind: "PersistentVolume"}, "pv", nil), true},
		"one that a policy forbids":                   {apierrors.NewForbidden(volumes, "pv", errors.New("no")), true},
		"one that is too large":                       {apierrors.NewRequestEntityTooLargeError("too large"), true},
		"one that makes no sense":                     {apierrors.NewBadRequest("what"), true},
		"one whose name is taken":                     {&nameTakenError{"pv"}, true},
		"whatever it is wrapped in":                   {fmt.Errorf("creating: %w", apierrors.NewBadRequest("what")), true},
		"an API server that is busy":                  {apierrors.NewTooManyRequests("later", 1), false},
		"one that takes too long":                     {apierrors.NewTimeoutError("later", 1), false},
		"one that is in trouble":                      {apierrors.NewInternalError(errors.New("etcd")), false},
		"a webhook out of reach":                      {&apierrors.StatusError{ErrStatus: metav1.Status{Code: 500}}, false},
		"a write that met another":                    {apierrors.NewConflict(volumes, "pv", errors.New("changed")), false},
		"no answer at all":                            {errors.New("connection refused"), false},
		"an object that is there, and on its way out": {errors.New("the one that is there is being given back"), false},
	}
	for name, tt := range tests {
		if got := isPermanentRejection(tt.err); got != tt.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

func TestLocate(t *testing.T) {
	const name = "pvc-" + uid
	named := map[string]string{"projects/p/disks/pvc-1": "pvc-1", "projects/p/disks/pvc-2": "pvc-2"}
	numbered := map[string]string{"vol-1": "pvc-1", "vol-2": "pvc-2"}
	tests := map[string]struct {
		name   string
		known  map[string]string
		listed []string
		want   lookupResult
	}{
		"an id with the name in it is the volume":            {name, named, []string{"projects/p/disks/pvc-1", "projects/p/disks/" + name}, lookupResult{handle: "projects/p/disks/" + name}},
		"also where nothing else is known":                   {name, nil, []string{name}, lookupResult{handle: name}},
		"an id with a truncated name may be another claim's": {"pvc-1111", named, []string{"projects/p/disks/pvc-1111"}, lookupResult{}},
		"a name without dashes has the whole UID too":        {"pvc-11111111222233334444555555555555", nil, []string{"x/pvc-11111111222233334444555555555555"}, lookupResult{handle: "x/pvc-11111111222233334444555555555555"}},
		"where ids have names, one without is another's":     {name, named, []string{"projects/p/disks/pvc-1", "projects/p/disks/boot"}, lookupResult{absent: true}},
		"where they have none, a stranger may be it":         {name, numbered, []string{"vol-1", "vol-2", "vol-3"}, lookupResult{}},
		"where every id is known, it is none of them":        {name, numbered, []string{"vol-2", "vol-1"}, lookupResult{absent: true}},
		"an empty list has no volume":                        {name, nil, nil, lookupResult{absent: true}},
		"a first volume whose id says nothing may be it":     {name, nil, []string{"vol-1"}, lookupResult{}},
		"one id without a name spoils what the others show":  {name, map[string]string{"disks/pvc-1": "pvc-1", "vol-2": "pvc-2"}, []string{"disks/pvc-1", "vol-2", "vol-3"}, lookupResult{}},
	}
	for title, tt := range tests {
		if got := locate(tt.name, uid, tt.known, tt.listed); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", title, got, tt.want)
		}
	}
}
