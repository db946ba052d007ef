package retention

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

// noon is the time in tests.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// A change changes a fixture.
type change func(*v1alpha1.Checkpoint)

// taken returns a ready Checkpoint of the Deployment web that was created and taken a while
// ago.
func taken(name string, ago time.Duration, changes ...change) *v1alpha1.Checkpoint {
	at := noon.Add(-ago)
	c := &v1alpha1.Checkpoint{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "team", Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(at),
			Finalizers: []string{v1alpha1.Finalizer},
		},
		Spec: v1alpha1.CheckpointSpec{PolicyRef: "daily", Target: v1alpha1.CheckpointTarget{PodName: "web-1"}},
		Status: v1alpha1.CheckpointStatus{
			Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonCompleted}},
			Workload:   &v1alpha1.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			Containers: []v1alpha1.ContainerCheckpoint{{Name: "main"}}, CheckpointTime: &metav1.MicroTime{Time: at},
		},
	}
	for _, f := range changes {
		f(c)
	}
	return c
}

func notReady(c *v1alpha1.Checkpoint) { c.Status.Conditions[0].Status = metav1.ConditionFalse }

func deleting(c *v1alpha1.Checkpoint) { c.DeletionTimestamp = ptr.To(metav1.NewTime(noon)) }

// stuck is a deleted Checkpoint whose store cannot be reached.
func stuck(c *v1alpha1.Checkpoint) {
	deleting(c)
	c.Status.Conditions[0] = metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonDeleting, Message: "the bucket is out of reach",
	}
}

func of(workload string) change {
	return func(c *v1alpha1.Checkpoint) { c.Status.Workload.Name = workload }
}

// saidBy is a node whose clock says another time when the Checkpoint is taken.
func saidBy(ahead time.Duration) change {
	return func(c *v1alpha1.Checkpoint) { c.Status.CheckpointTime.Time = c.Status.CheckpointTime.Add(ahead) }
}

// keeping returns a retention; 0 for a limit that is not set.
func keeping(count int32, age time.Duration) *v1alpha1.CheckpointRetention {
	keep := &v1alpha1.CheckpointRetention{MinCount: ptr.To(int32(1))}
	if count > 0 {
		keep.MaxCount = &count
	}
	if age > 0 {
		keep.MaxAge = &metav1.Duration{Duration: age}
	}
	return keep
}

func atLeast(count int32, keep *v1alpha1.CheckpointRetention) *v1alpha1.CheckpointRetention {
	keep.MinCount = &count
	return keep
}

func policy(keep *v1alpha1.CheckpointRetention) *v1alpha1.CheckpointPolicy {
	return &v1alpha1.CheckpointPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "daily", UID: "policy", Generation: 1},
		Spec:       v1alpha1.CheckpointPolicySpec{Retention: keep},
	}
}
