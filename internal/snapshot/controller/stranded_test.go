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

func TestContentsOfANodeThatIsGoneEndWhereNobodyNeedsToBeAsked(t *testing.T) {
	long := strings.Repeat("n", 70)
	unasked := func(s *scene) { s.content.Status = nil }
	change := func(c ...func(*scene)) []func(*scene) { return c }
	tests := map[string]struct {
		changes []func(*scene)
		nodes   []string // as the cache shows
		live    []string // in fact
		ends    bool
	}{
		"one that shall stay at the driver":          {change(retain), nil, nil, true},
		"one of which nothing is at the driver":      {change(unasked), nil, nil, true},
		"part of a group, which is deleted as whole": {change(memberContent), nil, nil, true},
		"one that was there before, and nobody's":    {change(retain, unbind, silence), nil, nil, true},
		"one of a long name":                         {change(retain, on(snapshot.NodeLabel(long))), nil, nil, true},
		"not one that is at the driver":              {nil, nil, nil, false},
		"not one that may be":                        {change(unasked, begin), nil, nil, false},
		"not one of a node that is there":            {change(retain), []string{"gone"}, []string{"gone"}, false},
		"not one of a node that has come back":       {change(retain), nil, []string{"gone"}, false},
		"not one of a node with a long name":         {change(retain, on(snapshot.NodeLabel(long))), []string{long}, []string{long}, false},
		"not one of no node":                         {change(retain, on("")), nil, nil, false},
		"not one that nobody has let go":             {change(retain, silence), nil, nil, false},
		"not one that is not deleted":                {change(retain, func(s *scene) { s.content.DeletionTimestamp = nil }), nil, nil, false},
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
			r := strandedReconciler{engine(api, cluster(t, nodes(tt.live)...))}
			r.options.Distributed = true
			if _, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.content)}); err != nil {
				t.Fatal(err)
			}
			if ended := apierrors.IsNotFound(api.Get(t.Context(), client.ObjectKeyFromObject(s.content), s.content)); ended != tt.ends {
				t.Errorf("that it has ended is %v", ended)
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

// The cache may show the policy Retain, and the content have begun to be made since.
func TestAContentThatHasChangedIsNotEndedForItsNode(t *testing.T) {
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
	r := strandedReconciler{engine(&lagging{Client: api, content: before}, api)}
	r.options.Distributed, r.options.RetryStart = true, time.Second
	result, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.content)})
	if err != nil || result.RequeueAfter == 0 {
		t.Errorf("got %+v, %v", result, err)
	}
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(s.content), now); err != nil {
		t.Errorf("it has ended: %v", err)
	}
}

func TestThatANodeIsGoneIsToldWithWhatToDo(t *testing.T) {
	s := going()
	stranded(s)
	s.snapshot.Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true)}
	api := cluster(t, s.objects()...)
	r := engine(api, api)
	r.options.Distributed = true
	recorder := record.NewFakeRecorder(10)
	r.events = kube.NewEventsWithRecorder(recorder)
	key := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.snapshot)}
	left, err := r.Reconcile(t.Context(), key)
	if err != nil || left.RequeueAfter <= 0 || len(recorder.Events) > 0 {
		t.Fatalf("before anybody else could have deleted it: %+v, %v", left, err)
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
