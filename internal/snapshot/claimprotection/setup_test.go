package claimprotection

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// The cache may show the finalizer only after the snapshot was taken.
func TestAProtectedClaimIsRecheckedLater(t *testing.T) {
	free := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data"}}
	kept := free.DeepCopy()
	kept.Finalizers = []string{snapshot.ClaimFinalizer}
	deleted := kept.DeepCopy()
	deleted.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	relabelled, relabelledFree := kept.DeepCopy(), free.DeepCopy()
	relabelled.Labels, relabelledFree.Labels = map[string]string{"app": "other"}, map[string]string{"app": "other"}
	tests := map[string]struct {
		before, now *corev1.PersistentVolumeClaim
		want        int
	}{
		"a claim gets the finalizer":             {free, kept, 1},
		"a claim has the finalizer":              {kept, kept, 0},
		"a claim loses the finalizer":            {kept, free, 0},
		"a protected claim is deleted":           {kept, deleted, 1},
		"a protected claim waits for its end":    {deleted, deleted, 0},
		"a protected claim gets other labels":    {kept, relabelled, 1},
		"an unprotected claim gets other labels": {free, relabelledFree, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			queue := &delayed{}
			recheckLater().Update(t.Context(), event.UpdateEvent{ObjectOld: tt.before, ObjectNew: tt.now}, queue)
			if queue.added != tt.want {
				t.Errorf("it is rechecked %d times", queue.added)
			}
		})
	}
}

// delayed counts what is enqueued with a delay.
type delayed struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request]
	added int
}

func (q *delayed) AddAfter(_ reconcile.Request, pause time.Duration) {
	if pause > 0 {
		q.added++
	}
}
