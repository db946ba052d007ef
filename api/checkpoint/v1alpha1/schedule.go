package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A CheckpointSchedule creates Checkpoints of the running pods in its namespace on a schedule,
// and deletes old ones. Who may create one can read the memory of all containers there.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ckptsched,categories=holdfast
// +kubebuilder:printcolumn:name="Schedule",type=string,JSONPath=`.spec.schedule`
// +kubebuilder:printcolumn:name="Time zone",type=string,priority=1,JSONPath=`.spec.timeZone`
// +kubebuilder:printcolumn:name="Suspended",type=boolean,JSONPath=`.spec.suspend`
// +kubebuilder:printcolumn:name="Last run",type=date,JSONPath=`.status.run.startTime`
// +kubebuilder:printcolumn:name="Next run",type=string,JSONPath=`.status.nextRunTime`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,priority=1,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="metadata.name may have at most 63 characters: it is a label of the Checkpoints"
type CheckpointSchedule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the desired state.
	// +required
	Spec CheckpointScheduleSpec `json:"spec"`

	// status is the observed state.
	// +optional
	Status CheckpointScheduleStatus `json:"status,omitempty"`
}

// CheckpointScheduleList is a list of CheckpointSchedules.
//
// +kubebuilder:object:root=true
type CheckpointScheduleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []CheckpointSchedule `json:"items"`
}

// CheckpointScheduleSpec selects the pods, and sets when Checkpoints are created and how many
// are kept.
type CheckpointScheduleSpec struct {
	// podSelector selects pods by their labels. An empty selector selects all pods in the namespace.
	// +required
	PodSelector metav1.LabelSelector `json:"podSelector"`

	// schedule is a cron expression with five fields (minute, hour, day of month, month of year, day of week), or one of
	// @hourly, @daily, @weekly, @monthly and @yearly.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="!self.contains('TZ=')",message="set the time zone in spec.timeZone"
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('@every')",message="@every has no fixed times: use five fields, for example */15 * * * *"
	Schedule string `json:"schedule"`

	// timeZone is the time zone of schedule: a name from the IANA database, for example Europe/Berlin.
	// +optional
	// +kubebuilder:default=UTC
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self != 'Local'",message="Local depends on where the operator runs: use the name of a time zone"
	TimeZone string `json:"timeZone,omitempty"`

	// jitter delays all runs by a fixed time between zero and this value, for example 10m. The delay differs between
	// CheckpointSchedules, so that they do not all start at the same moment.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('24h')",message="jitter must be at most 24h"
	Jitter *metav1.Duration `json:"jitter,omitempty"`

	// startingDeadline is how late a Checkpoint may be created. A run that would start later, because the operator was
	// down, is skipped. So is a pod whose turn in a run comes later. Without a deadline, the operator catches up on the
	// newest missed run, however late it is.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="startingDeadline must be at least 10s"
	StartingDeadline *metav1.Duration `json:"startingDeadline,omitempty"`

	// concurrencyPolicy says what becomes of a pod whose Checkpoint of an earlier run is not ready. Forbid waits for it,
	// for a day at most. Allow creates another one.
	// +optional
	// +kubebuilder:default=Forbid
	// +kubebuilder:validation:Enum=Forbid;Allow
	ConcurrencyPolicy ConcurrencyPolicy `json:"concurrencyPolicy,omitempty"`

	// maxConcurrent is how many Checkpoints of this schedule may be in progress at a time. The other pods wait for their
	// turn. A Checkpoint that reports a problem, or takes longer than an hour, does not count.
	// +optional
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxConcurrent int32 `json:"maxConcurrent,omitempty"`

	// suspend stops the schedule: no Checkpoint is created and none is deleted. Runs that are due while it is suspended
	// are not caught up on.
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// trigger starts one run now, each time its value changes. Once every running pod has a ready Checkpoint that was
	// created after the change, status.lastTrigger has the same value.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Trigger string `json:"trigger,omitempty"`

	// retention limits which Checkpoints of this schedule are kept. Without it, all are kept. The retention of a
	// CheckpointPolicy applies as well.
	// +optional
	Retention *CheckpointScheduleRetention `json:"retention,omitempty"`

	// checkpointTemplate describes the Checkpoints to create.
	// +required
	CheckpointTemplate CheckpointTemplate `json:"checkpointTemplate"`
}

// ConcurrencyPolicy says what becomes of a pod whose Checkpoint of an earlier run is not ready.
type ConcurrencyPolicy string

// The values of spec.concurrencyPolicy.
const (
	ForbidConcurrent ConcurrencyPolicy = "Forbid"
	AllowConcurrent  ConcurrencyPolicy = "Allow"
)

// CheckpointScheduleRetention limits which Checkpoints of a schedule are kept. Ready ones
// count for each workload separately, and the newest one of each is always kept.
//
// +kubebuilder:validation:XValidation:rule="has(self.maxCount) || has(self.maxAge) || has(self.maxFailedCount)",message="set maxCount, maxAge or maxFailedCount; without retention all Checkpoints are kept"
type CheckpointScheduleRetention struct {
	// maxCount is how many ready Checkpoints of each workload are kept. All pods of a Deployment are one workload, each
	// pod of a StatefulSet is one.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxCount *int32 `json:"maxCount,omitempty"`

	// maxAge is how long a ready Checkpoint is kept, for example 72h. The newest one of each workload is kept longer.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="maxAge must be at least 1m"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`

	// maxFailedCount is how many failed Checkpoints of the whole schedule are kept.
	// +optional
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=0
	MaxFailedCount *int32 `json:"maxFailedCount,omitempty"`
}

// CheckpointTemplate describes the Checkpoints that a schedule creates. Its fields are those of
// a Checkpoint.
//
// +kubebuilder:validation:XValidation:rule="has(self.policyRef) || has(self.storage)",message="set checkpointTemplate.storage with a backend, or checkpointTemplate.policyRef to take the storage of a CheckpointPolicy"
type CheckpointTemplate struct {
	// labels are added to each Checkpoint.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(key, !key.startsWith('schedule.holdfast.io/'))",message="labels that begin with schedule.holdfast.io/ are reserved"
	Labels map[string]string `json:"labels,omitempty"`

	// annotations are added to each Checkpoint.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(key, !key.startsWith('schedule.holdfast.io/'))",message="annotations that begin with schedule.holdfast.io/ are reserved"
	Annotations map[string]string `json:"annotations,omitempty"`

	// containerName is the name of the container. Without it, it is the first container of each pod. With * it is all of
	// them, frozen at the same moment.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ContainerName string `json:"containerName,omitempty"`

	// policyRef is the name of a CheckpointPolicy. The policy's retention applies to the Checkpoints, and its storage if
	// storage is not set.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	PolicyRef string `json:"policyRef,omitempty"`

	// storage is where the data go. It takes precedence over the policy's.
	// +optional
	Storage *CheckpointStorage `json:"storage,omitempty"`

	// encryption encrypts the data before they leave the node. It takes precedence over the policy's.
	// +optional
	Encryption *Encryption `json:"encryption,omitempty"`

	// establishedTCP says what becomes of a container with established TCP connections. Refuse rejects the Checkpoint.
	// Close checkpoints it; the connections of the running container stay, and a restored one finds them closed.
	// +optional
	// +kubebuilder:default=Refuse
	// +kubebuilder:validation:Enum=Refuse;Close
	EstablishedTCP EstablishedTCP `json:"establishedTCP,omitempty"`

	// maxFrozenTime is for how long a container may be frozen, for example 30s. A checkpoint that would take longer is
	// cancelled. Without it, the time that the container's liveness probe permits applies.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('1h')",message="maxFrozenTime must be between 100ms and 1h"
	MaxFrozenTime *metav1.Duration `json:"maxFrozenTime,omitempty"`
}

// CheckpointScheduleStatus is all that the operator has to know about past runs.
type CheckpointScheduleStatus struct {
	// observedGeneration is the generation of the object that this status describes.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Ready, Available and Running. ClocksDiffer is added while differing clocks prevent deletions.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// plan is the schedule in effect, and since when. It is not set while the schedule is suspended.
	// +optional
	Plan *SchedulePlan `json:"plan,omitempty"`

	// lastScheduleTime is the scheduled time of the last run that was started by the schedule.
	// +optional
	LastScheduleTime *metav1.Time `json:"lastScheduleTime,omitempty"`

	// lastMissedTime is the scheduled time of the last run that was skipped because it was too late.
	// +optional
	LastMissedTime *metav1.Time `json:"lastMissedTime,omitempty"`

	// nextRunTime is when the next run starts, including jitter.
	// +optional
	NextRunTime *metav1.Time `json:"nextRunTime,omitempty"`

	// lastTrigger is the last value of spec.trigger for which every running pod has a ready Checkpoint.
	// +optional
	LastTrigger string `json:"lastTrigger,omitempty"`

	// run is the last run. It is recorded before its first Checkpoint is created.
	// +optional
	Run *ScheduleRun `json:"run,omitempty"`

	// pods is the progress of the selected pods. At most 500 are listed: failing ones first, then those without a ready
	// Checkpoint from the last run.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=500
	Pods []ScheduledPod `json:"pods,omitempty"`
}

// SchedulePlan is the schedule in effect.
type SchedulePlan struct {
	// schedule and timeZone are copied from the spec.
	// +required
	Schedule string `json:"schedule"`
	// +optional
	TimeZone string `json:"timeZone,omitempty"`

	// since is when the plan took effect. Earlier runs are not caught up on.
	// +required
	Since metav1.Time `json:"since"`
}

// A ScheduleRun creates one Checkpoint of each running pod.
type ScheduleRun struct {
	// time identifies the run. It is the scheduled time or, for a trigger, the time at which the operator saw it or a
	// little later.
	// +required
	Time metav1.Time `json:"time"`

	// id distinguishes the run from others with the same time, for example one that started early because a clock was
	// ahead.
	// +optional
	ID string `json:"id,omitempty"`

	// startTime is when the run started.
	// +required
	StartTime metav1.Time `json:"startTime"`

	// trigger is the value of spec.trigger that the run is for, if any.
	// +optional
	Trigger string `json:"trigger,omitempty"`

	// completionTime is when the last pod stopped waiting: each pod has a Checkpoint, which may not be ready yet, or was
	// skipped.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
}

// ScheduledPod is the progress of one pod.
type ScheduledPod struct {
	// name and uid identify the pod.
	// +required
	Name string `json:"name"`
	// +optional
	UID types.UID `json:"uid,omitempty"`

	// lastRunTime is the time of the last run that created a Checkpoint of the pod.
	// +optional
	LastRunTime *metav1.Time `json:"lastRunTime,omitempty"`

	// lastCheckpoint is the newest Checkpoint.
	// +optional
	LastCheckpoint string `json:"lastCheckpoint,omitempty"`

	// lastReadyCheckpoint is the newest Checkpoint that is ready.
	// +optional
	LastReadyCheckpoint string `json:"lastReadyCheckpoint,omitempty"`

	// lastReadyTime is when the containers of lastReadyCheckpoint were frozen.
	// +optional
	LastReadyTime *metav1.Time `json:"lastReadyTime,omitempty"`

	// reason is why the pod has no ready Checkpoint from the last run. It is empty if the pod has one.
	// +optional
	Reason string `json:"reason,omitempty"`

	// message explains the reason.
	// +optional
	Message string `json:"message,omitempty"`

	// retryTime is when the operator retries to create a Checkpoint that the API server rejected.
	// +optional
	RetryTime *metav1.Time `json:"retryTime,omitempty"`
}

// Reasons of the condition Ready and of pods that only a CheckpointSchedule has. The others
// are those of a SnapshotSchedule.
const (
	// ReasonNoPods means that no pod is selected.
	ReasonNoPods = "NoPods"
	// ReasonPodsFailing means that some pods do not get their Checkpoints.
	ReasonPodsFailing = "PodsFailing"
	// ReasonPodNotRunning means that a pod is skipped because it does not run.
	ReasonPodNotRunning = "NotRunning"
)
