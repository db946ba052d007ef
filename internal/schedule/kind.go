package schedule

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A kind is a kind of schedules. It converts their objects, and knows what the targets and the
// children are. When something is done, and in which order, is the same for all kinds.
type kind interface {
	// getTerms returns how things are called.
	getTerms() *terms

	// newSchedule returns an empty schedule, and newScheduleList an empty list of them.
	newSchedule() client.Object
	newScheduleList() client.ObjectList
	// fromObject converts a schedule. The result shares the object's pointers.
	fromObject(o client.Object) *schedule
	// selectorOf returns the selector of a schedule's object, which is not changed.
	selectorOf(o client.Object) *metav1.LabelSelector
	// setStatus sets the status of a schedule's object.
	setStatus(o client.Object, status *scheduleStatus)

	// listTargets returns the targets of a namespace: at least those that the selector selects.
	// It reads from the API server if uncached is set.
	listTargets(ctx context.Context, r *Reconciler, namespace string, selector labels.Selector, uncached bool) ([]target, error)
	// getTarget returns a target from the API server, or nil if it does not exist.
	getTarget(ctx context.Context, r *Reconciler, key client.ObjectKey) (*target, error)
	// watchTargets makes changes of targets trigger reconciles, if the kind watches them.
	watchTargets(b *builder.Builder, r *Reconciler)

	// newChild returns an empty child, and newChildList an empty list of them.
	newChild() client.Object
	newChildList() client.ObjectList
	// childFor returns the child of a target without what all children have: see newChildFor.
	childFor(s *schedule, t *target) client.Object
	// childStatus returns what a child's spec, labels and status say.
	childStatus(o client.Object) childStatus
}

// terms are the names of a kind's things.
type terms struct {
	resource      string // of the schedules, with the group
	childResource string // of the children, with the group
	controller    string // name of the controller

	target, targets   string // such as claim
	child, children   string // such as snapshot
	childKind         string // such as VolumeSnapshot
	selector          string // field with the selector
	targetLabel       string // label of a child with the UID of its target
	sharedHistory     bool   // a history has the children of several targets
	uncachedTargets   bool   // targets are not in the cache: every observation asks the API server
	runStarted        string // reason of an event
	runMissed         string // reason of an event
	noTargets         string // reason of condition Ready
	targetsFailing    string // reason of condition Ready
	childFailed       string // reason of a target
	skipped           string // reason of a target of which no child can be created
	metrics           string // prefix of metrics
	childrenMetric    string // name of the counter of children
	scheduleLabel     string // of metrics
	targetMetricLabel string // of metrics
}

// nothingDone is the end of a message about why a schedule does nothing.
func (t *terms) nothingDone() string { return "no " + t.child + " is created or deleted" }

// A childStatus is what a kind knows of a child.
type childStatus struct {
	target     types.UID // empty if unknown
	targetName string
	// targetCertain is set if the child was taken of that target, or can be taken of no other.
	targetCertain bool
	// history is what the child counts for in retention: children of the same history replace
	// each other. Empty if unknown.
	history string

	ready bool
	// hasData is set if there are data, which may not be ready, and started if somebody may have
	// begun to make them.
	hasData, started bool
	// takenAt is from when the data are; zero if unknown.
	takenAt time.Time
	// failed is set if the child can never become ready.
	failed       bool
	errorMessage string
}
