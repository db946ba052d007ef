package capacity

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// owners is an API server with the controllers of objects.
type owners struct {
	client.Reader
	controllers map[string]*metav1.OwnerReference // by kind and name
	read        []string
}

func (o *owners) Get(_ context.Context, name client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	id := into.GetObjectKind().GroupVersionKind().Kind + " " + name.String()
	o.read = append(o.read, id)
	controller, ok := o.controllers[id]
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{}, name.Name)
	}
	into.SetUID(types.UID("uid of " + id))
	if controller != nil {
		into.SetOwnerReferences([]metav1.OwnerReference{{Kind: "ConfigMap", Name: "no controller"}, *controller})
	}
	return nil
}

func TestFindOwner(t *testing.T) {
	api := func() *owners {
		return &owners{controllers: map[string]*metav1.OwnerReference{
			"Pod ns/driver-0":          {APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "driver-abc", UID: "rs", Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true)},
			"ReplicaSet ns/driver-abc": {APIVersion: "apps/v1", Kind: "Deployment", Name: "driver", UID: "deploy", Controller: ptr.To(true)},
			"Deployment ns/driver":     nil,
			"Pod ns/alone":             nil,
		}}
	}
	tests := map[string]struct {
		pod   string
		level int
		want  *metav1.OwnerReference
		read  []string
		err   string
	}{
		"level -1 is none":                  {"driver-0", -1, nil, nil, ""},
		"level 0 is the pod":                {"driver-0", 0, &metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: "driver-0", UID: "uid of Pod ns/driver-0"}, []string{"Pod ns/driver-0"}, ""},
		"level 1 is its controller":         {"driver-0", 1, &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "driver-abc", UID: "rs"}, []string{"Pod ns/driver-0"}, ""},
		"level 2 is the controller of that": {"driver-0", 2, &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "driver", UID: "deploy"}, []string{"Pod ns/driver-0", "ReplicaSet ns/driver-abc"}, ""},
		"a level too many":                  {"driver-0", 3, nil, []string{"Pod ns/driver-0", "ReplicaSet ns/driver-abc", "Deployment ns/driver"}, "Deployment driver has no controller: lower --capacity-ownerref-level to 2"},
		"a pod without controller":          {"alone", 1, nil, []string{"Pod ns/alone"}, "Pod alone has no controller: lower --capacity-ownerref-level to 0"},
		"a missing pod":                     {"gone", 1, nil, []string{"Pod ns/gone"}, "reading Pod ns/gone"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			from, o := api(), options()
			o.Pod, o.OwnerLevel = tt.pod, tt.level
			got, err := findOwner(t.Context(), from, o)
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("got %v, want %q", err, tt.err)
			}
			if tt.want != nil {
				tt.want.Controller = ptr.To(true)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.read, from.read); diff != "" {
				t.Errorf("more or less was read than needed: %s", diff)
			}
		})
	}
}
