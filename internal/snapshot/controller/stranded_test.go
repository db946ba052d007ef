package controller

import (
	"strings"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

func TestStrandedContentsThatNeedNoDriverAreDeleted(t *testing.T) {
	long := strings.Repeat("n", 70)
	unasked := func(s *scene) { s.content.Status = nil }
	change := func(c ...func(*scene)) []func(*scene) { return c }
	tests := map[string]struct {
		changes []func(*scene)
		nodes   []string // in the cache
		live    []string // at the API server
		ends    bool
	}{
		"a retained content":                               {change(retain), nil, nil, true},
		"a content without a snapshot at the driver":       {change(unasked), nil, nil, true},
		"a member of a group, which is deleted as a whole": {change(memberContent), nil, nil, true},
		"a pre-provisioned content that is not bound":      {change(retain, unbind, silence), nil, nil, true},
		"a node with a long name":                          {change(retain, on(snapshot.NodeLabel(long))), nil, nil, true},
		"not if the snapshot exists at the driver":         {nil, nil, nil, false},
		"not if the snapshot may exist at the driver":      {change(unasked, begin), nil, nil, false},
		"not if the node exists":                           {change(retain), []string{"gone"}, []string{"gone"}, false},
		"not if the node has come back":                    {change(retain), nil, []string{"gone"}, false},
		"not if the node exists and has a long name":       {change(retain, on(snapshot.NodeLabel(long))), []string{long}, []string{long}, false},
		"not without a node":                               {change(retain, on("")), nil, nil, false},
		"not without the being-deleted annotation":         {change(retain, silence), nil, nil, false},
		"not if it is not being deleted":                   {change(retain, func(s *scene) { s.content.DeletionTimestamp = nil }), nil, nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := going()
			stranded(s)
			for _, c := range tt.changes {
				c(s)
			}
			s.content.Finalizers = []string{snapshot.Single.Finalizer}
			api := cluster(t, append(nodes(tt.nodes), s.content)...)
			r := strandedReconciler{reconcilerOn(api, cluster(t, nodes(tt.live)...))}
			r.options.Distributed = true
			if _, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.content)}); err != nil {
				t.Fatal(err)
			}
			if ended := apierrors.IsNotFound(api.Get(t.Context(), client.ObjectKeyFromObject(s.content), s.content)); ended != tt.ends {
				t.Errorf("it is deleted: %v", ended)
			}
		})
	}
}

func on(node string) func(*scene) {
	return func(s *scene) { s.content.Labels[snapshot.ManagedBy] = node }
}

func begin(s *scene) { s.content.Annotations[snapshot.Single.BeingCreated] = snapshot.Yes }

func silence(s *scene) { delete(s.content.Annotations, snapshot.Single.BeingDeleted) }

func unbind(s *scene) {
	s.content.Spec.VolumeSnapshotRef.UID, s.content.Spec.Source.SnapshotHandle = "", ptr.To("h")
}

func nodes(names []string) (all []client.Object) {
	for _, name := range names {
		all = append(all, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return all
}

// The cache may be stale: the policy may have changed, and the csi-snapshotter may have
// begun.
func TestAStrandedContentThatHasChangedIsNotDeleted(t *testing.T) {
	s := going()
	stranded(s)
	s.content.Finalizers = []string{snapshot.Single.Finalizer}
	api := cluster(t, s.content)
	before := &snapshotv1.VolumeSnapshotContent{}
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(s.content), before); err != nil {
		t.Fatal(err)
	}
	now := before.DeepCopy()
	now.Spec.Source.VolumeHandle = ptr.To("other")
	if err := api.Update(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	before.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentRetain
	r := strandedReconciler{reconcilerOn(&lagging{Client: api, content: before}, api)}
	r.options.Distributed, r.options.RetryStart = true, time.Second
	result, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.content)})
	if err != nil || result.RequeueAfter == 0 {
		t.Errorf("got %+v, %v", result, err)
	}
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(s.content), now); err != nil {
		t.Errorf("it is deleted: %v", err)
	}
}

func TestANodeThatIsGoneIsReportedWithACommand(t *testing.T) {
	s := going()
	stranded(s)
	s.snapshot.Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true)}
	api := cluster(t, s.objects()...)
	r := reconcilerOn(api, api)
	r.options.Distributed = true
	recorder := record.NewFakeRecorder(10)
	r.events = kube.NewEventsWithRecorder(recorder)
	key := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.snapshot)}
	left, err := r.Reconcile(t.Context(), key)
	if err != nil || left.RequeueAfter <= 0 || len(recorder.Events) > 0 {
		t.Fatalf("it is reported too early: %+v, %v", left, err)
	}
	r.now = func() time.Time { return time.Now().Add(nodeGoneTimeout) }
	for range 2 {
		if _, err := r.Reconcile(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	const command = `kubectl patch volumesnapshotcontent snapcontent-uid-s --type=merge -p '{"spec":{"deletionPolicy":"Retain"}}'`
	if len(recorder.Events) != 1 || !strings.Contains(<-recorder.Events, command) {
		t.Error("there is no event with the command, or more than one")
	}
	if err := api.Get(t.Context(), key.NamespacedName, s.snapshot); err != nil {
		t.Fatal(err)
	}
	said := s.snapshot.Status
	if text := errorMessage(said.Error); !strings.Contains(text, command) || !strings.Contains(text, "node gone") || !*said.ReadyToUse {
		t.Errorf("the status is %+v", said)
	}
	if woken := r.deletingContentsOn(r.snapshotRequest)(t.Context(), nodes([]string{"gone"})[0]); len(woken) != 1 || woken[0] != key {
		t.Errorf("the end of the node wakes %v", woken)
	}
	if woken := r.deletingContentsOn(contentRequest)(t.Context(), nodes([]string{"other"})[0]); len(woken) > 0 {
		t.Errorf("the end of another node wakes %v", woken)
	}
}
