package sidecar

import (
	"context"
	"strings"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// reconcileOnce reconciles the content once in a queue.
func reconcileOnce(t *testing.T, r *Reconciler, ends bool) error {
	t.Helper()
	r.events = kube.NewEventsWithRecorder(record.NewFakeRecorder(10))
	_, err := (queue{r, ends}).Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "c"}})
	return err
}

// getContent reads the content. It returns nil if the content does not exist.
func getContent(t *testing.T, r *Reconciler) *snapshotv1.VolumeSnapshotContent {
	t.Helper()
	c := newContent()
	if err := r.client.Get(t.Context(), client.ObjectKeyFromObject(c), c); err != nil {
		if client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		return nil
	}
	return c
}

// failCreate makes CreateSnapshot fail with a code, or succeed with codes.OK.
func failCreate(server *csitest.Driver, code codes.Code) {
	server.SetHooks(csitest.Hooks{Before: func(_ context.Context, m csi.Method, _ any) error {
		if m == csi.CreateSnapshot && code != codes.OK {
			return status.Error(code, "not today")
		}
		return nil
	}})
}

// While the outcome of the first call is unknown, CreateSnapshot is repeated, whatever codes the
// driver returns. Then the snapshot is deleted.
func TestAnUnknownOutcomeIsResolvedDespiteErrors(t *testing.T) {
	for _, code := range []codes.Code{
		codes.Internal, codes.Unknown, codes.AlreadyExists, codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition,
		codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.OutOfRange, codes.DataLoss,
	} {
		t.Run(code.String(), func(t *testing.T) {
			r, server := connectedReconciler(t, csitest.Options{}, func(c content) { c.Status = nil; deleting(c); beingCreated(c) }, nil)
			failCreate(server, code)
			if err := reconcileOnce(t, r, true); err == nil || !strings.Contains(err.Error(), "not today") {
				t.Errorf("got %v", err)
			}
			c := getContent(t, r)
			if c == nil {
				t.Fatal("the content is deleted, but the driver has its snapshot")
			}
			if said := c.Status.Error; said == nil || !strings.Contains(*said.Message, "snapshot-uid-s") || !strings.Contains(*said.Message, snapshot.Single.BeingCreated) {
				t.Errorf("the content does not report what may be left, and what to do: %+v", said)
			}
			failCreate(server, codes.OK)
			if err := reconcileOnce(t, r, true); err != nil {
				t.Fatal(err)
			}
			if left := len(server.Snapshots()); getContent(t, r) != nil || left != 0 {
				t.Errorf("%d snapshots are left at the driver", left)
			}
		})
	}
}

// A content that is not being deleted keeps the annotation after such errors, too.
func TestAnnotationStaysAfterLaterErrors(t *testing.T) {
	r, server := connectedReconciler(t, csitest.Options{}, func(c content) { c.Status = nil }, nil)
	for _, code := range []codes.Code{codes.DeadlineExceeded, codes.InvalidArgument} {
		failCreate(server, code)
		if err := reconcileOnce(t, r, false); err == nil {
			t.Fatal("CreateSnapshot succeeded")
		}
	}
	if _, marked := getContent(t, r).Annotations[snapshot.Single.BeingCreated]; !marked {
		t.Error("the annotation is removed, but the first call may have created the snapshot")
	}
	failCreate(server, codes.OK)
	if err := reconcileOnce(t, r, false); err != nil {
		t.Fatal(err)
	}
	if c := getContent(t, r); c.Annotations[snapshot.Single.BeingCreated] != "" || c.Annotations[rejectedSinceAnnotation] != "" || c.Status == nil {
		t.Errorf("the outcome is not recorded: %v", c.Annotations)
	}
}

// If the driver keeps rejecting the call, its list shows after a while that the snapshot does not
// exist, or at once that it exists, if its id is derived from the name.
func TestListingResolvesAnUnknownOutcome(t *testing.T) {
	tests := map[string]struct {
		change func(t *testing.T, server *csitest.Driver, r *Reconciler)
		gone   bool
	}{
		"an unknown snapshot may be the one": {change: func(*testing.T, *csitest.Driver, *Reconciler) {}},
		"an empty list means that it does not exist": {change: func(t *testing.T, server *csitest.Driver, r *Reconciler) {
			for _, s := range server.Snapshots() {
				if err := r.driver.WithPrecondition(csi.Unconditional).DeleteSnapshot(t.Context(), &csipb.DeleteSnapshotRequest{SnapshotId: s.ID}); err != nil {
					t.Fatal(err)
				}
			}
		}, gone: true},
		"an id derived from the name is the snapshot": {change: func(_ *testing.T, server *csitest.Driver, _ *Reconciler) {
			server.SetHooks(csitest.Hooks{
				Before: func(_ context.Context, m csi.Method, _ any) error {
					if m == csi.CreateSnapshot {
						return status.Error(codes.Internal, "not today")
					}
					return nil
				},
				After: func(_ context.Context, m csi.Method, _, resp any, err error) (any, error) {
					if list, ok := resp.(*csipb.ListSnapshotsResponse); ok && m == csi.ListSnapshots {
						list.Entries[0].Snapshot.SnapshotId = "projects/p/snapshot-uid-s"
					}
					return resp, err
				},
			})
		}, gone: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, server := connectedReconciler(t, csitest.Options{}, func(c content) { c.Status = nil; deleting(c); beingCreated(c) }, nil)
			failCreate(server, codes.Internal)
			if err := reconcileOnce(t, r, true); err == nil {
				t.Fatal("the driver's error was taken as an outcome")
			}
			tt.change(t, server, r)
			r.now = func() time.Time { return time.Now().Add(2 * r.driver.SettleTime()) }
			if err := reconcileOnce(t, r, true); (err == nil) != tt.gone {
				t.Errorf("got %v", err)
			}
			if gone := getContent(t, r) == nil; gone != tt.gone {
				t.Errorf("the content is gone: %t", gone)
			}
		})
	}
}

// Right before DeleteSnapshot is sent, the decision is checked against the API server.
func TestAStaleCacheDoesNotDeleteARetainedSnapshot(t *testing.T) {
	tests := map[string]func(content){
		"its policy is Retain now": retainPolicy,
		"it is another one now":    func(c content) { c.UID = "other" },
		"it is not being deleted":  func(c content) { c.DeletionTimestamp = nil },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			r, server := connectedReconciler(t, csitest.Options{}, deleting, nil)
			now := getContent(t, r)
			change(now)
			now.ResourceVersion = ""
			r.apiReader = fakeClient(t, now)
			if err := reconcileOnce(t, r, true); err != nil {
				t.Error(err)
			}
			if calls, left := server.Calls(csi.DeleteSnapshot), len(server.Snapshots()); calls != 0 || left != 1 {
				t.Errorf("DeleteSnapshot was called %d times, %d snapshots are left", calls, left)
			}
		})
	}
}

// A driver may report a group for a snapshot that was created alone. That does not make it a
// member: nothing else would delete it.
func TestAGroupInTheResponseDoesNotMakeAMember(t *testing.T) {
	r, server := connectedReconciler(t, csitest.Options{}, func(c content) { c.Status = nil }, nil)
	server.SetHooks(csitest.Hooks{After: func(_ context.Context, m csi.Method, _, resp any, err error) (any, error) {
		if made, ok := resp.(*csipb.CreateSnapshotResponse); ok && m == csi.CreateSnapshot {
			made.Snapshot.GroupSnapshotId = "consistency-group-1"
		}
		return resp, err
	}})
	if err := reconcileOnce(t, r, false); err != nil {
		t.Fatal(err)
	}
	c := getContent(t, r)
	if c.Status.VolumeGroupSnapshotHandle != nil {
		t.Errorf("it has the group handle %s", *c.Status.VolumeGroupSnapshotHandle)
	}
	member := r.kind.Read(c)
	if member.GroupHandle != "" {
		t.Errorf("it counts as a member of %s", member.GroupHandle)
	}
	s := "consistency-group-1"
	c.Status.VolumeGroupSnapshotHandle = &s // as an earlier version wrote it
	if member = r.kind.Read(c); member.GroupHandle != "" {
		t.Error("it counts as a member and would never be deleted")
	}
}

func TestMatchListed(t *testing.T) {
	const name, uid = "snapshot-11111111-2222-3333-4444-555555555555", "11111111-2222-3333-4444-555555555555"
	known := map[string]bool{"snap-1": true}
	tests := map[string]struct {
		name   string
		listed []string
		want   listResult
	}{
		"an id derived from the name is the snapshot": {name, []string{"snap-1", "p/" + name}, listResult{handle: "p/" + name}},
		"contents refer to all ids":                   {name, []string{"snap-1"}, listResult{absent: true}},
		"the list is empty":                           {name, nil, listResult{absent: true}},
		"an unknown id may be the snapshot":           {name, []string{"snap-1", "snap-2"}, listResult{}},
		"a truncated name may be another snapshot's":  {"snapshot-11111111", []string{"p/snapshot-11111111"}, listResult{}},
		"a name without dashes has the whole UID":     {"snapshot-11111111222233334444555555555555", []string{"snapshot-11111111222233334444555555555555"}, listResult{handle: "snapshot-11111111222233334444555555555555"}},
	}
	for title, tt := range tests {
		if got := matchListed(tt.name, uid, tt.listed, known); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", title, got, tt.want)
		}
	}
}
