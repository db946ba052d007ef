package claimprotection

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/kube/kubetest"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// user is a snapshot that needs every claim, or "".
type user string

func (u user) NeedsClaim(context.Context, *corev1.PersistentVolumeClaim) (string, time.Duration, error) {
	return string(u), 0, nil
}

func protectedClaim(deletedFor time.Duration) *corev1.PersistentVolumeClaim {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data", UID: "uid", Finalizers: []string{snapshot.ClaimFinalizer}}}
	if deletedFor > 0 {
		claim.DeletionTimestamp = &metav1.Time{Time: time.Now().Add(-deletedFor)}
	}
	return claim
}

func TestADeletedClaimSaysWhichSnapshotItWaitsFor(t *testing.T) {
	tests := map[string]struct {
		deletedFor time.Duration
		by         user
		told       bool
		recheck    bool
	}{
		"a claim that waits for long":         {time.Minute, "VolumeSnapshot nightly", true, false},
		"not a claim that was just deleted":   {time.Millisecond, "VolumeSnapshot nightly", false, true},
		"not a claim that nobody deletes":     {0, "VolumeSnapshot nightly", false, false},
		"not a claim that no snapshot needs":  {time.Minute, "", false, false},
		"not a claim that is free and stays ": {0, "", false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			claim, said := protectedClaim(tt.deletedFor), record.NewFakeRecorder(9)
			api := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(claim).Build()
			c := New(api, api, kube.NewEventsWithRecorder(said), time.Second, tt.by)
			result, err := c.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(claim)})
			if err != nil || result.RequeueAfter > 0 != tt.recheck {
				t.Errorf("got %+v, %v", result, err)
			}
			if tt.told {
				kubetest.WantEvent(t, said, "WaitingForSnapshot", string(tt.by))
			}
			if len(said.Events) > 0 {
				t.Errorf("there is an event: %s", <-said.Events)
			}
		})
	}
}

func TestAClaimThatCannotBeUnprotectedSaysWhy(t *testing.T) {
	for name, response := range map[string]error{
		"a policy denies it":          kubetest.DeniedByPolicy("persistentvolumeclaims", "data"),
		"the role does not permit it": kubetest.LacksPermission("update", "persistentvolumeclaims", "data"),
	} {
		t.Run(name, func(t *testing.T) {
			claim, said := protectedClaim(0), record.NewFakeRecorder(9)
			api := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(claim).Build()
			policy := &kubetest.Policy{Response: response}
			c := New(policy.Apply(api), api, kube.NewEventsWithRecorder(said), time.Second, user(""))
			key := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(claim)}
			if result, err := c.Reconcile(t.Context(), key); !kube.IsDenied(err) || result.RequeueAfter != 0 {
				t.Errorf("it is not backed off: %+v, %v", result, err)
			}
			kubetest.WantEvent(t, said, "Warning", kube.ReasonDenied, "removing the finalizer from claim data", kube.Message(response))
			policy.Response = nil
			if _, err := c.Reconcile(t.Context(), key); err != nil {
				t.Errorf("without the denial: %v", err)
			}
			if err := api.Get(t.Context(), key.NamespacedName, claim); err != nil || hasFinalizer(claim) {
				t.Errorf("it is still protected, %v", err)
			}
		})
	}
}
