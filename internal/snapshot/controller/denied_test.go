package controller

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/kube/kubetest"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

func isClaim(o client.Object) bool { _, ok := o.(*corev1.PersistentVolumeClaim); return ok }
func isContent(o client.Object) bool {
	_, ok := o.(*snapshotv1.VolumeSnapshotContent)
	return ok
}

// A denied write is retried with backoff, and the user can see which one is denied and by
// whom.
func TestDeniedWriteIsReportedOnTheSnapshot(t *testing.T) {
	fresh := func() *scene {
		s := ofClaim()
		s.snapshot.Finalizers = []string{snapshot.AsSourceFinalizer, snapshot.BoundFinalizer}
		return s
	}
	onContents := func(verb string) func(string, string, client.Object) bool {
		return func(v, sub string, o client.Object) bool { return v == verb && sub == "" && isContent(o) }
	}
	tests := map[string]struct {
		from   func() *scene
		err    error
		denies func(verb, subresource string, o client.Object) bool
		reason string
		says   string
	}{
		"a policy keeps finalizers off the claim": {
			fresh, kubetest.DeniedByPolicy("persistentvolumeclaims", "data"), func(_, _ string, o client.Object) bool { return isClaim(o) },
			"SnapshotContentCreationFailed", "adding the finalizer to claim data: ",
		},
		"the role does not permit to create contents": {
			fresh, kubetest.LacksPermission("create", "volumesnapshotcontents", ""), onContents("create"),
			"SnapshotContentCreationFailed", "creating VolumeSnapshotContent snapcontent-uid-s: ",
		},
		"a policy keeps finalizers off the snapshot": {
			ofClaim, kubetest.DeniedByPolicy("volumesnapshots", "s"), func(verb, sub string, _ client.Object) bool { return verb == "patch" && sub == "" },
			"SnapshotContentCreationFailed", "adding finalizers to the snapshot: ",
		},
		"a policy forbids the deletion of the content": {
			going, kubetest.DeniedByPolicy("volumesnapshotcontents", "snapcontent-uid-s"), onContents("delete"),
			"SnapshotDeletePending", "deleting VolumeSnapshotContent snapcontent-uid-s: ",
		},
		"the role does not permit to patch contents": {
			going, kubetest.LacksPermission("patch", "volumesnapshotcontents", "snapcontent-uid-s"), onContents("patch"),
			"SnapshotDeletePending", "allowing the deletion of VolumeSnapshotContent snapcontent-uid-s: ",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := tt.from()
			s.snapshot.Status = nil
			if s.snapshot.DeletionTimestamp != nil {
				s.snapshot.Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: ptr.To(true)}
			}
			api, ok := cluster(t, s.objects()...).(client.WithWatch)
			if !ok {
				t.Fatal("the client cannot watch")
			}
			policy, said := &kubetest.Policy{Response: tt.err, Denies: tt.denies}, record.NewFakeRecorder(9)
			r := reconcilerOn(policy.Apply(api), api)
			r.events = kube.NewEventsWithRecorder(said)
			key := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.snapshot)}
			for range 2 {
				if result, err := r.Reconcile(t.Context(), key); !kube.IsDenied(err) || result.RequeueAfter != 0 {
					t.Fatalf("it is not backed off: %+v, %v", result, err)
				}
			}
			if len(said.Events) != 1 {
				t.Errorf("there are %d events", len(said.Events))
			}
			kubetest.WantEvent(t, said, "Warning", tt.reason, tt.says, kube.Message(tt.err))
			if err := api.Get(t.Context(), key.NamespacedName, s.snapshot); err != nil {
				t.Fatal(err)
			}
			status := s.snapshot.Status
			if status == nil || status.Error == nil || !strings.HasPrefix(*status.Error.Message, tt.says) {
				t.Fatalf("the status is %+v", status)
			}
			if ready := ptr.Deref(status.ReadyToUse, false); ready != (s.snapshot.DeletionTimestamp != nil) {
				t.Errorf("it is ready: %t", ready)
			}
			policy.Response = nil
			if _, err := r.Reconcile(t.Context(), key); err != nil {
				t.Errorf("without the policy: %v", err)
			}
		})
	}
}

// A driver may be removed before its snapshots. Users cannot read contents.
func TestAContentThatNobodyDeletesIsReported(t *testing.T) {
	tests := map[string]struct {
		age   time.Duration
		told  bool // by the csi-snapshotter, that its writes are denied
		lists error
		says  string
	}{
		"not at once":                           {age: 0},
		"after a while":                         {age: time.Minute, says: "is being deleted, and no csi-snapshotter of driver"},
		"not if the csi-snapshotter says why":   {age: time.Minute, told: true},
		"if it is not known whether it does so": {age: time.Minute, told: true, lists: errors.New("forbidden"), says: "is one running?"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := going()
			permit(s)
			s.content.DeletionTimestamp, s.content.Finalizers = ptr.To(metav1.NewTime(time.Now().Add(-tt.age))), []string{snapshot.Single.Finalizer}
			api, said := cluster(t, s.objects()...), record.NewFakeRecorder(9)
			r := reconcilerOn(api, &eventLister{Client: api, any: tt.told, err: tt.lists})
			r.events = kube.NewEventsWithRecorder(said)
			result, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.snapshot)})
			if err != nil || result.RequeueAfter > 0 != (tt.age == 0) {
				t.Errorf("got %+v, %v", result, err)
			}
			if tt.says != "" {
				kubetest.WantEvent(t, said, "SnapshotNotServed", "VolumeSnapshotContent snapcontent-uid-s", tt.says)
			}
			if len(said.Events) > 0 {
				t.Errorf("there is an event: %s", <-said.Events)
			}
		})
	}
}

// eventLister responds to lists of events.
type eventLister struct {
	client.Client
	any bool
	err error
}

func (l *eventLister) List(ctx context.Context, list client.ObjectList, o ...client.ListOption) error {
	events, ok := list.(*corev1.EventList)
	if !ok {
		return l.Client.List(ctx, list, o...)
	}
	if l.any {
		events.Items = make([]corev1.Event, 1)
	}
	return l.err
}
