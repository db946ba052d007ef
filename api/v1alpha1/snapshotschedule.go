package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A SnapshotSchedule takes snapshots of the PersistentVolumeClaims in its namespace on a
// schedule, and deletes old snapshots.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=snapsched,categories=holdfast
// +kubebuilder:printcolumn:name="Schedule",type=string,JSONPath=`.spec.schedule`
// +kubebuilder:printcolumn:name="Time zone",type=string,priority=1,JSONPath=`.spec.timeZone`
// +kubebuilder:printcolumn:name="Suspended",type=boolean,JSONPath=`.spec.suspend`
// +kubebuilder:printcolumn:name="Last run",type=date,JSONPath=`.status.run.startTime`
// +kubebuilder:printcolumn:name="Next run",type=string,JSONPath=`.status.nextRunTime`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,priority=1,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="metadata.name may have at most 63 characters: it is a label of the snapshots"
type SnapshotSchedule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the desired state.
	// +required
	Spec SnapshotScheduleSpec `json:"spec"`

	// status is the observed state.
	// +optional
	Status SnapshotScheduleStatus `json:"status,omitempty"`
}

// SnapshotScheduleList is a list of SnapshotSchedules.
//
// +kubebuilder:object:root=true
type SnapshotScheduleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []SnapshotSchedule `json:"items"`
}

// SnapshotScheduleSpec selects the claims, and sets when snapshots are taken and how long
// they are kept.
type SnapshotScheduleSpec struct {
	// claimSelector selects claims by their labels. An empty selector selects all claims in the namespace.
	// +optional
	ClaimSelector metav1.LabelSelector `json:"claimSelector,omitempty"`

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
	// +kubebuilder:validation:XValidation:rule="self != 'Local'",message="Local depends on where the controller runs: use the name of a time zone"
	TimeZone string `json:"timeZone,omitempty"`

	// jitter delays all runs by a fixed time between zero and this value, for example 10m. The delay differs between
	// SnapshotSchedules, so that they do not all start at the same moment.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('24h')",message="jitter must be at most 24h"
	Jitter *metav1.Duration `json:"jitter,omitempty"`

	// startingDeadline is how late a snapshot may be taken. A run that would start later, because the controller was
	// down, is skipped. So is a claim whose turn in a run comes later. Without a deadline, the controller catches up on
	// the newest missed run, however late it is.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="startingDeadline must be at least 10s"
	StartingDeadline *metav1.Duration `json:"startingDeadline,omitempty"`

	// maxConcurrent is how many snapshots of this schedule may be in progress (not ready to use) at a time. The other
	// claims wait for their turn. A snapshot that reports an error, or takes longer than an hour, does not count.
	// +optional
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxConcurrent int32 `json:"maxConcurrent,omitempty"`

	// suspend stops the schedule: no snapshot is taken and none is deleted. Runs that are due while it is suspended are
	// not caught up on.
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// trigger starts one run now, each time its value changes. Once every claim has a ready snapshot that was taken after
	// the change, status.lastTrigger has the same value.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Trigger string `json:"trigger,omitempty"`

	// retention limits which snapshots are kept. Without it, all are kept.
	// +optional
	Retention *Retention `json:"retention,omitempty"`

	// snapshotTemplate describes the VolumeSnapshots to create.
	// +optional
	SnapshotTemplate SnapshotTemplate `json:"snapshotTemplate,omitempty"`
}

// Retention limits which ready snapshots of a claim are kept. The newest one is
// always kept.
//
// +kubebuilder:validation:XValidation:rule="has(self.maxCount) || has(self.maxAge)",message="set maxCount, maxAge or both; without retention all snapshots are kept"
type Retention struct {
	// maxCount is how many ready snapshots of each claim are kept.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxCount *int32 `json:"maxCount,omitempty"`

	// maxAge is how long a ready snapshot is kept, for example 720h. The newest one of each claim is kept longer.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="maxAge must be at least 1m"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}

// SnapshotTemplate describes the VolumeSnapshots that a schedule creates.
type SnapshotTemplate struct {
	// labels are added to each snapshot.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(key, !key.startsWith('schedule.holdfast.io/'))",message="labels that begin with schedule.holdfast.io/ are reserved"
	Labels map[string]string `json:"labels,omitempty"`

	// annotations are added to each snapshot.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(key, !key.startsWith('schedule.holdfast.io/'))",message="annotations that begin with schedule.holdfast.io/ are reserved"
	Annotations map[string]string `json:"annotations,omitempty"`

	// snapshotClassName is the name of the VolumeSnapshotClass. Without it, the default class of the claim's driver is used.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SnapshotClassName *string `json:"snapshotClassName,omitempty"`
}

// SnapshotScheduleStatus is all that the controller has to know about past runs.
type SnapshotScheduleStatus struct {
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
	Plan *Plan `json:"plan,omitempty"`

	// lastScheduleTime is the scheduled time of the last run that was started by the schedule.
	// +optional
	LastScheduleTime *metav1.Time `json:"lastScheduleTime,omitempty"`

	// lastMissedTime is the scheduled time of the last run that was skipped because it was too late.
	// +optional
	LastMissedTime *metav1.Time `json:"lastMissedTime,omitempty"`

	// nextRunTime is when the next run starts, including jitter.
	// +optional
	NextRunTime *metav1.Time `json:"nextRunTime,omitempty"`

	// lastTrigger is the last value of spec.trigger for which every claim has a ready snapshot.
	// +optional
	LastTrigger string `json:"lastTrigger,omitempty"`

	// run is the last run. It is recorded before its first snapshot is created.
	// +optional
	Run *Run `json:"run,omitempty"`

	// claims is the progress of the selected claims. At most 500 are listed: failing ones first, then those without a
	// ready snapshot from the last run.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=500
	Claims []ClaimStatus `json:"claims,omitempty"`
}

// Plan is the schedule in effect.
type Plan struct {
	// schedule and timeZone are copied from the spec.
	// +required
	Schedule string `json:"schedule"`
	// +optional
	TimeZone string `json:"timeZone,omitempty"`

	// since is when the plan took effect. Earlier runs are not caught up on.
	// +required
	Since metav1.Time `json:"since"`
}

// A Run takes one snapshot of each claim.
type Run struct {
	// time identifies the run. It is the scheduled time or, for a trigger, the time at which the controller saw it or a
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

	// completionTime is when the last claim stopped waiting: each claim has a snapshot, which may not be ready yet, or
	// was skipped.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
}

// ClaimStatus is the progress of one claim.
type ClaimStatus struct {
	// name and uid identify the claim.
	// +required
	Name string `json:"name"`
	// +optional
	UID types.UID `json:"uid,omitempty"`

	// lastRunTime is the time of the last run that took a snapshot of the claim.
	// +optional
	LastRunTime *metav1.Time `json:"lastRunTime,omitempty"`

	// lastSnapshot is the newest snapshot.
	// +optional
	LastSnapshot string `json:"lastSnapshot,omitempty"`

	// lastReadySnapshot is the newest snapshot that is ready to use.
	// +optional
	LastReadySnapshot string `json:"lastReadySnapshot,omitempty"`

	// lastReadyTime is when lastReadySnapshot was taken.
	// +optional
	LastReadyTime *metav1.Time `json:"lastReadyTime,omitempty"`

	// reason is why the claim has no ready snapshot from the last run. It is empty if the claim has one.
	// +optional
	Reason string `json:"reason,omitempty"`

	// message explains the reason.
	// +optional
	Message string `json:"message,omitempty"`

	// retryTime is when the controller retries to create a snapshot that the API server rejected.
	// +optional
	RetryTime *metav1.Time `json:"retryTime,omitempty"`
}

// Types of conditions.
const (
	// Ready is True while the schedule works as specified and no claim is failing.
	Ready = "Ready"
	// Available is False if the schedule does nothing for any claim: its spec is invalid, or
	// all claims are failing. It stays True while only some are, which Ready reports.
	Available = "Available"
	// Running is True while claims wait for their turn.
	Running = "Running"
	// ClocksDiffer is set while expired snapshots are kept because the clocks of the controller and of the API server
	// differ, or the API server's time is unknown. It is also a reason of Ready.
	ClocksDiffer = "ClocksDiffer"
)

// Reasons of condition Ready.
const (
	// Scheduled means that there is no problem.
	Scheduled = "Scheduled"
	// Suspended means that spec.suspend is set.
	Suspended = "Suspended"
	// NoClaims means that no claim is selected.
	NoClaims = "NoClaims"
	// Invalid means that a field of the spec is invalid. No snapshot is taken or deleted.
	Invalid = "Invalid"
	// ClaimsFailing means that some claims do not get their snapshots.
	ClaimsFailing = "ClaimsFailing"
	// RemovalFailing means that the API server rejects the deletion of expired snapshots.
	RemovalFailing = "RemovalFailing"
)

// Reasons of condition Running.
const (
	// Waiting means that claims wait for their turn, or for a retry.
	Waiting = "Waiting"
	// Idle means that no claim is waiting.
	Idle = "Idle"
)

// Reasons of a claim. Waiting is one of them.
const (
	// InProgress means that the snapshot is not ready yet.
	InProgress = "InProgress"
	// NotBound means that the claim has no volume.
	NotBound = "NotBound"
	// Removed means that somebody deleted the snapshot of the last run.
	Removed = "Removed"
	// Terminating means that the claim is being deleted.
	Terminating = "Terminating"
	// Blocked means that an earlier snapshot of the claim is not ready yet.
	Blocked = "Blocked"
	// NextRun means that the claim did not exist, or was not selected, during the last run.
	NextRun = "NextRun"
	// Late means that the claim's turn did not come within the starting deadline.
	Late = "Late"
	// CreateFailed means that the API server rejected the snapshot.
	CreateFailed = "CreateFailed"
	// SnapshotFailed means that the snapshot reports an error.
	SnapshotFailed = "SnapshotFailed"
)
