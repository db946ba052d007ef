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

// The cache may show that a claim is kept only after its snapshot was cut.
func TestAClaimThatIsKeptIsLookedAtLater(t *testing.T) {
	free := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data"}}
	kept := free.DeepCopy()
	kept.Finalizers = []string{snapshot.ClaimFinalizer}
	relabelled, relabelledFree := kept.DeepCopy(), free.DeepCopy()
	relabelled.Labels, relabelledFree.Labels = map[string]string{"app": "other"}, map[string]string{"app": "other"}
	tests := map[string]struct {
		before, now *corev1.PersistentVolumeClaim
		want        int
	}{
		"one that is kept now":                  {free, kept, 1},
		"one that was before":                   {kept, kept, 0},
		"one that is let go":                    {kept, free, 0},
		"one that its group may select no more": {kept, relabelled, 1},
		"one that nobody keeps":                 {free, relabelledFree, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			queue := &later{}
			recheckLater().Update(t.Context(), event.UpdateEvent{ObjectOld: tt.before, ObjectNew: tt.now}, queue)
			if queue.added != tt.want {
				t.Errorf("it is looked at %d times", queue.added)
			}
		})
	}
}

// later counts what is to be looked at after a while.
type later struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request]
	added int
}

func (l *later) AddAfter(_ reconcile.Request, pause time.Duration) {
	if pause > 0 {
		l.added++
	}
}
