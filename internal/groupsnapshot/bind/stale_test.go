package bind

import (
	"context"
	"errors"
	"testing"
	"time"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/internal/snapshot/bind"
)

// The cache may not show that a content is there, or is bound to the group, since a
// moment ago.
func TestAGroupThatGoesTakesItsContentAlong(t *testing.T) {
	tests := map[string]struct {
		from  func(*scene)
		stale func(*groupv1.VolumeGroupSnapshotContent) error
	}{
		"one that was made": {made, func(c *groupv1.VolumeGroupSnapshotContent) error {
			return apierrors.NewNotFound(groupv1.Resource("volumegroupsnapshotcontents"), c.Name)
		}},
		"one that was bound": {imported, func(c *groupv1.VolumeGroupSnapshotContent) error {
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
			isReleased(t, api, s.content)
		})
	}
}

// An API server that is deleting an object does not see a finalizer that comes at
// that moment. What was made for the group then goes too.
func TestAGroupThatGoesPastItsFinalizerTakesItsContentAlong(t *testing.T) {
	s := fresh()
	objects := []client.Object{s.group, s.class}
	for i := range s.sources {
		s.sources[i].Claim.Labels = s.group.Spec.Source.Selector.MatchLabels
		objects = append(objects, s.sources[i].Claim, s.sources[i].Volume)
	}
	api := cluster(t, objects...)
	step(t, s.group, &lagging{Client: api, looks: 1}, api)
	content := &groupv1.VolumeGroupSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: contentName(s.group)}}
	isReleased(t, api, content)
}

// step takes a group one step further.
func step(t *testing.T, about *groupv1.VolumeGroupSnapshot, cached client.Client, live client.Reader) {
	t.Helper()
	o := &bind.Options{RetryStart: time.Millisecond}
	k := kind()
	k.client, k.live, k.options = cached, live, o
	k.singles = &bind.Groups{Claims: bind.NewClaims(cached, live, nil, 0)}
	engine := bind.New(cached, live, k, nil, o)
	if _, err := engine.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(about)}); err != nil {
		t.Fatal(err)
	}
}

func isReleased(t *testing.T, api client.Client, content *groupv1.VolumeGroupSnapshotContent) {
	t.Helper()
	left := &groupv1.VolumeGroupSnapshotContent{}
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(content), left); err != nil {
		t.Fatal(err)
	}
	if left.DeletionTimestamp == nil || left.Annotations[snapshot.Group.BeingDeleted] == "" {
		t.Error("the group is gone, and nobody will ever delete its content")
	}
}

func cluster(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(snapshotv1.AddToScheme(scheme), groupv1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithIndex(&snapshotv1.VolumeSnapshot{}, membersByGroup, ownerName).
		WithIndex(&snapshotv1.VolumeSnapshot{}, "source-claim", func(client.Object) []string { return nil }).
		WithIndex(&groupv1.VolumeGroupSnapshot{}, uncutGroups, uncut).
		WithIndex(&corev1.PersistentVolumeClaim{}, claimsKept, kept).
		WithIndex(&corev1.PersistentVolume{}, volumesByHandle, volumeHandle).Build()
}

// lagging is a cluster seen through a cache that lags.
type lagging struct {
	client.Client
	content func(*groupv1.VolumeGroupSnapshotContent) error // what it makes of a content
	looks   int                                             // how often it shows a group; 0 for always
	looked  int
}

func (c *lagging) Get(ctx context.Context, key client.ObjectKey, into client.Object, o ...client.GetOption) error {
	err := c.Client.Get(ctx, key, into, o...)
	switch it := into.(type) {
	case *groupv1.VolumeGroupSnapshotContent:
		if err == nil && c.content != nil {
			return c.content(it)
		}
	case *groupv1.VolumeGroupSnapshot:
		if c.looked++; c.looks > 0 && c.looked > c.looks {
			return apierrors.NewNotFound(groupv1.Resource("volumegroupsnapshots"), key.Name)
		}
	}
	return err
}
