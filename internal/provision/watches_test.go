package provision

import (
	"errors"
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

func TestIndexKeysOfAWaitingClaim(t *testing.T) {
	far := func(c *corev1.PersistentVolumeClaim) {
		c.Spec.DataSourceRef = &corev1.TypedObjectReference{
			APIGroup: ptr.To(source.GroupSnapshot), Kind: source.KindSnapshot, Name: "s", Namespace: ptr.To("prod"),
		}
	}
	tests := map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		keys   func(*corev1.PersistentVolumeClaim) []string
		want   []string
	}{
		"its class":             {nil, waitsForClass, []string{"fast"}},
		"no source":             {nil, waitsForSource, nil},
		"no grant":              {nil, waitsForGrant, nil},
		"no attributes class":   {nil, waitsForAttributes, nil},
		"any node, to be bound": {nil, waitsForNode, []string{anyNode}},
		"the claim that it clones": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: source.KindClaim, Name: "a"}
		}, waitsForSource, []string{"PersistentVolumeClaim/team/a"}},
		"no grant for what is its own": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: source.KindClaim, Name: "a"}
		}, waitsForGrant, nil},
		"no source that others fill in": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ptr.To("example.com"), Kind: "Populator", Name: "a"}
		}, waitsForSource, nil},
		"a snapshot elsewhere": {far, waitsForSource, []string{"VolumeSnapshot/prod/s"}},
		"a grant there":        {far, waitsForGrant, []string{"prod"}},
		"its attributes class": {func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = ptr.To("gold") }, waitsForAttributes, []string{"gold"}},
		"its node":             {func(c *corev1.PersistentVolumeClaim) { c.Annotations[kube.AnnSelectedNode] = "n1" }, waitsForNode, []string{"n1"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := claim()
			if tt.change != nil {
				tt.change(c)
			}
			if diff := cmp.Diff(tt.want, tt.keys(c)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRegistrationEvents(t *testing.T) {
	r := &Reconciler{options: options()}
	csiNode := func(driver string, keys ...string) *storagev1.CSINode {
		return &storagev1.CSINode{Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: driver, TopologyKeys: keys}}}}
	}
	ours := r.options.Driver
	tests := map[string]struct {
		before, after *storagev1.CSINode
		want          bool
	}{
		"the driver is registered":          {csiNode("other", "k"), csiNode(ours, "k"), true},
		"it has another topology":           {csiNode(ours, "k"), csiNode(ours, "k", "l"), true},
		"nothing has changed":               {csiNode(ours, "k"), csiNode(ours, "k"), false},
		"another driver is registered":      {csiNode("other"), csiNode("other", "k"), false},
		"a node comes with the driver":      {nil, csiNode(ours, "k"), true},
		"a node comes with another driver":  {nil, csiNode("other", "k"), false},
		"a node comes, not yet with labels": {nil, csiNode(ours), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got bool
			if tt.before == nil {
				got = r.registrationEvents().Create(event.CreateEvent{Object: tt.after})
			} else {
				got = r.registrationEvents().Update(event.UpdateEvent{ObjectOld: tt.before, ObjectNew: tt.after})
			}
			if got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestAKindThatCannotBeWatchedIsReportedOnce(t *testing.T) {
	var said []string
	resource := schema.GroupVersionResource{Group: source.GroupSnapshot, Version: "v1", Resource: "volumesnapshots"}
	k := &optionalWatch{resource: resource, log: funcr.New(func(_, args string) { said = append(said, args) }, funcr.Options{})}
	for range 3 {
		for _, err := range []error{
			apierrors.NewForbidden(resource.GroupResource(), "", errors.New("no such right")), apierrors.NewNotFound(resource.GroupResource(), ""),
		} {
			if !k.isUnavailable(err) {
				t.Errorf("%v does not end the watch", err)
			}
		}
	}
	if k.isUnavailable(errors.New("connection refused")) {
		t.Error("an API server in trouble ends the watch")
	}
	if len(said) != 1 {
		t.Errorf("reported %d times: %q", len(said), said)
	}
}
