package schedule

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// A schedule is what all kinds of schedules have in common. A kind converts its objects to it.
type schedule struct {
	metav1.ObjectMeta

	Spec   scheduleSpec
	Status scheduleStatus

	terms  *terms
	object client.Object // the object that it was converted from
}

// key identifies the schedule in the API.
func (s *schedule) key() client.ObjectKey { return client.ObjectKeyFromObject(s.object) }

// A scheduleSpec is the spec of a schedule. See v1alpha1.SnapshotScheduleSpec.
type scheduleSpec struct {
	Selector         metav1.LabelSelector
	Schedule         string
	TimeZone         string
	Jitter           *metav1.Duration
	StartingDeadline *metav1.Duration
	MaxConcurrent    int32
	// AllowConcurrent creates a child although an earlier one of the same target is in
	// progress.
	AllowConcurrent bool
	Suspend         bool
	Trigger         string
	Retention       *retention
}

// A retention limits which children are kept.
type retention struct {
	// MaxCount and MaxAge limit the ready children of each history.
	MaxCount *int32
	MaxAge   *metav1.Duration
	// MaxFailed limits the children that can never become ready.
	MaxFailed *int32
}

// A scheduleStatus is the status of a schedule. See v1alpha1.SnapshotScheduleStatus.
type scheduleStatus struct {
	ObservedGeneration               int64
	Conditions                       []metav1.Condition
	Plan                             *v1alpha1.Plan
	LastScheduleTime, LastMissedTime *metav1.Time
	NextRunTime                      *metav1.Time
	LastTrigger                      string
	Run                              *v1alpha1.Run
	Targets                          []targetStatus
}

// clone returns a copy that shares nothing that is modified.
func (s *scheduleStatus) clone() scheduleStatus {
	c := *s
	c.Conditions, c.Targets = slices.Clone(s.Conditions), slices.Clone(s.Targets)
	c.Plan, c.Run = s.Plan.DeepCopy(), s.Run.DeepCopy()
	return c
}

// A targetStatus is the progress of a target. See v1alpha1.ClaimStatus.
type targetStatus struct {
	Name            string
	UID             types.UID
	LastRunTime     *metav1.Time
	LastChild       string
	LastReadyChild  string
	LastReadyTime   *metav1.Time
	Reason, Message string
	RetryTime       *metav1.Time
}

// A target is an object for which the runs of a schedule create children: a claim or a pod.
type target struct {
	Name      string
	UID       types.UID
	Labels    map[string]string
	CreatedAt time.Time
	Deleting  bool
	// SkipReason and SkipMessage say why no child can be created now; empty if one can.
	SkipReason, SkipMessage string
}
