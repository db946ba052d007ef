package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A SnapshotSchedule takes snapshots of the claims of its namespace, again and
// again, and removes those that are no longer to be kept.
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

	// spec is what is wanted.
	// +required
	Spec SnapshotScheduleSpec `json:"spec"`

	// status is how things are.
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

// SnapshotScheduleSpec says which claims are snapshotted when, and which of the
// snapshots are kept.
type SnapshotScheduleSpec struct {
	// claimSelector selects the claims by their labels. Empty, it selects all claims of the namespace.
	// +optional
	ClaimSelector metav1.LabelSelector `json:"claimSelector,omitempty"`

	// schedule is when: five fields in cron's syntax (minute, hour, day of month, month of year, day of week), or
	// @hourly, @daily, @weekly, @monthly or @yearly.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="!self.contains('TZ=')",message="the time zone belongs into spec.timeZone"
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('@every')",message="@every has no fixed times: write it in fields, such as */15 * * * *"
	Schedule string `json:"schedule"`

	// timeZone is the time zone of schedule, by its name in the IANA database, such as Europe/Berlin.
	// +optional
	// +kubebuilder:default=UTC
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self != 'Local'",message="Local would depend on where the controller runs: name the time zone"
	TimeZone string `json:"timeZone,omitempty"`

	// jitter shifts all runs by the same time between zero and this, another for each SnapshotSchedule, so that not
	// all of a cluster begin at the same moment. Such as 10m.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('24h')",message="jitter may be 24h at most"
	Jitter *metav1.Duration `json:"jitter,omitempty"`

	// startingDeadline is how late a snapshot may be taken. A run that is later, because nothing ran at its time, is passed
	// over, as are claims whose turn comes later. Without it the newest missed run is caught up however late it is.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s')",message="startingDeadline must be 10s at least"
	StartingDeadline *metav1.Duration `json:"startingDeadline,omitempty"`

	// maxConcurrent is how many snapshots of this schedule may be under way, that is not ready to use, at a time. The other
	// claims wait for their turn. One that reports an error, or takes longer than an hour, does not count.
	// +optional
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxConcurrent int32 `json:"maxConcurrent,omitempty"`

	// suspend stops everything: no snapshot is taken and none is removed. Runs that fall into the time of the suspension
	// are not caught up.
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// trigger asks for one run now, each time it becomes another value. When every claim has a ready snapshot from after that,
	// status.lastTrigger says the same.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Trigger string `json:"trigger,omitempty"`

	// retention says which snapshots are kept. Without it all are.
	// +optional
	Retention *Retention `json:"retention,omitempty"`

	// snapshotTemplate is what the snapshots have beside their source.
	// +optional
	SnapshotTemplate SnapshotTemplate `json:"snapshotTemplate,omitempty"`
}

// Retention says which of the ready snapshots of a claim are kept. The newest
// always is.
//
// +kubebuilder:validation:XValidation:rule="has(self.maxCount) || has(self.maxAge)",message="give maxCount, maxAge or both; without retention all snapshots are kept"
type Retention struct {
	// maxCount is how many ready snapshots are kept of each claim.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxCount *int32 `json:"maxCount,omitempty"`

	// maxAge is how long a ready snapshot is kept that is not its claim's newest. Such as 720h.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m')",message="maxAge must be 1m at least"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}

// SnapshotTemplate is what snapshots have beside their source.
type SnapshotTemplate struct {
	// labels are put on each snapshot.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(key, !key.startsWith('schedule.holdfast.io/'))",message="labels of schedule.holdfast.io/ are the schedule's own"
	Labels map[string]string `json:"labels,omitempty"`

	// annotations are put on each snapshot.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(key, !key.startsWith('schedule.holdfast.io/'))",message="annotations of schedule.holdfast.io/ are the schedule's own"
	Annotations map[string]string `json:"annotations,omitempty"`

	// snapshotClassName names the VolumeSnapshotClass. Without it the default class of the claim's driver counts.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SnapshotClassName *string `json:"snapshotClassName,omitempty"`
}

// SnapshotScheduleStatus is all that the controller has to know of the past.
type SnapshotScheduleStatus struct {
	// observedGeneration is the generation of the object that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Ready and Running, and ClocksDiffer while that keeps snapshots from being removed.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// plan is the schedule that is being kept, and since when. There is none while the schedule is suspended.
	// +optional
	Plan *Plan `json:"plan,omitempty"`

	// lastScheduleTime is the time, by schedule, of the last run that was begun for it.
	// +optional
	LastScheduleTime *metav1.Time `json:"lastScheduleTime,omitempty"`

	// lastMissedTime is the time, by schedule, of the last run that was passed over because it would have been too late.
	// +optional
	LastMissedTime *metav1.Time `json:"lastMissedTime,omitempty"`

	// nextRunTime is when the next run begins, jitter included.
	// +optional
	NextRunTime *metav1.Time `json:"nextRunTime,omitempty"`

	// lastTrigger is the last trigger for which every claim has a ready snapshot.
	// +optional
	LastTrigger string `json:"lastTrigger,omitempty"`

	// run is the last run. It is on record before the first of its snapshots.
	// +optional
	Run *Run `json:"run,omitempty"`

	// claims are the selected claims, those in trouble first if there are more than 500, and how far each is.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=500
	Claims []ClaimStatus `json:"claims,omitempty"`
}

// Plan is a schedule as it is being kept.
type Plan struct {
	// schedule and timeZone are those of the spec.
	// +required
	Schedule string `json:"schedule"`
	// +optional
	TimeZone string `json:"timeZone,omitempty"`

	// since is the moment from which on the plan counts. Runs of before are not caught up.
	// +required
	Since metav1.Time `json:"since"`
}

// A Run takes one snapshot of each claim.
type Run struct {
	// time names the run: the time by schedule, or for a trigger the moment it was seen, or a little later.
	// +required
	Time metav1.Time `json:"time"`

	// id tells the run from another of the same time, such as one that began because a clock was ahead.
	// +optional
	ID string `json:"id,omitempty"`

	// startTime is when it began.
	// +required
	StartTime metav1.Time `json:"startTime"`

	// trigger is the trigger that the run answers, if it does.
	// +optional
	Trigger string `json:"trigger,omitempty"`

	// completionTime is when no claim was waiting any more: each had its snapshot, which need not have been ready, or was
	// passed over.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
}

// ClaimStatus is what a schedule has done for a claim.
type ClaimStatus struct {
	// name and uid are the claim's.
	// +required
	Name string `json:"name"`
	// +optional
	UID types.UID `json:"uid,omitempty"`

	// lastRunTime is the time of the last run in which a snapshot was taken.
	// +optional
	LastRunTime *metav1.Time `json:"lastRunTime,omitempty"`

	// lastSnapshot is the newest snapshot.
	// +optional
	LastSnapshot string `json:"lastSnapshot,omitempty"`

	// lastReadySnapshot is the newest snapshot that is ready to use.
	// +optional
	LastReadySnapshot string `json:"lastReadySnapshot,omitempty"`

	// lastReadyTime is when that was taken.
	// +optional
	LastReadyTime *metav1.Time `json:"lastReadyTime,omitempty"`

	// reason says in a word why the claim has no snapshot of the last run that is ready. It is empty if it has.
	// +optional
	Reason string `json:"reason,omitempty"`

	// message says more.
	// +optional
	Message string `json:"message,omitempty"`

	// retryTime is when a snapshot that the API server refused is tried again.
	// +optional
	RetryTime *metav1.Time `json:"retryTime,omitempty"`
}

// Types of conditions.
const (
	// Ready is True while the schedule works as its spec says and no claim is in trouble.
	Ready = "Ready"
	// Running is True while claims wait for their turn.
	Running = "Running"
	// ClocksDiffer is there while snapshots stay because the clock of the controller and that of the API server do not
	// agree, or the latter is not known. It is the reason of Ready too.
	ClocksDiffer = "ClocksDiffer"
)

// Reasons of condition Ready.
const (
	// Scheduled is the reason of all being well.
	Scheduled = "Scheduled"
	// Suspended says that nothing is done because the spec says so.
	Suspended = "Suspended"
	// NoClaims says that nothing is done because no claim is selected.
	NoClaims = "NoClaims"
	// Invalid says that nothing is done because a field of the spec makes no sense.
	Invalid = "Invalid"
	// ClaimsFailing says that some claims do not get their snapshots.
	ClaimsFailing = "ClaimsFailing"
	// RemovalFailing says that the API server does not let snapshots go that are not to be kept.
	RemovalFailing = "RemovalFailing"
)

// Reasons of condition Running.
const (
	// Waiting says that claims wait for their turn, or for a retry.
	Waiting = "Waiting"
	// Idle says that no claim waits.
	Idle = "Idle"
)

// Reasons of a claim. Waiting is one of them.
const (
	// InProgress says that the snapshot is not ready yet.
	InProgress = "InProgress"
	// NotBound says that the claim has no volume.
	NotBound = "NotBound"
	// Removed says that somebody has removed the snapshot of the last run.
	Removed = "Removed"
	// Terminating says that the claim is being deleted.
	Terminating = "Terminating"
	// Blocked says that an earlier snapshot of the claim is not ready yet.
	Blocked = "Blocked"
	// NextRun says that the claim was not there, or not selected, when the last run was.
	NextRun = "NextRun"
	// Late says that the claim's turn did not come within the starting deadline.
	Late = "Late"
	// CreateFailed says that the API server refused the snapshot.
	CreateFailed = "CreateFailed"
	// SnapshotFailed says that the snapshot itself reports an error.
	SnapshotFailed = "SnapshotFailed"
)
