package snapshot

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/cache"
)

// The metric's names of operations that users wait for.
const (
	OperationCreate = "CreateSnapshot"         // until the snapshot is taken
	OperationReady  = "CreateSnapshotAndReady" // until it can be restored from
	OperationDelete = "DeleteSnapshot"         // until it is deleted
)

// How an operation ended.
const (
	succeeded = "success"
	cancelled = "cancel" // the user deleted the object
)

// OperationDurations measures how long users wait. Name, labels and buckets are those of
// upstream's snapshot-controller, because dashboards rely on them.
//
// The start of an operation is read from the object, so no measurement is lost by a restart.
// Object timestamps are in whole seconds. Only the more precise time at which an object was
// first observed is kept in memory.
type OperationDurations struct {
	seconds   *prometheus.HistogramVec
	firstSeen *cache.LRUExpireCache // firstSeen by waitKey
	done      *cache.LRUExpireCache // by doneKey: a stale cache may show the end of an operation again
	now       func() time.Time
}

// OperationMetrics measures the operations of this process, for both kinds of snapshots.
var OperationMetrics = NewOperationDurations()

const (
	// maxRemembered bounds how many objects are remembered, and rememberFor how long: in an
	// operation that takes longer, a second does not matter.
	maxRemembered = 4096
	rememberFor   = 10 * time.Minute
)

// NewOperationDurations returns the metric, which the caller must register.
func NewOperationDurations() *OperationDurations {
	return &OperationDurations{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "snapshot_controller_operation_total_seconds",
			Help:    "How long users have waited for an operation on a snapshot, from when they asked for it.",
			Buckets: []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600},
		}, []string{"driver_name", "operation_name", "snapshot_type", "operation_status"}),
		firstSeen: cache.NewLRUExpireCache(maxRemembered), done: cache.NewLRUExpireCache(maxRemembered), now: time.Now,
	}
}

// Describe implements prometheus.Collector.
func (o *OperationDurations) Describe(to chan<- *prometheus.Desc) { o.seconds.Describe(to) }

// Collect implements prometheus.Collector.
func (o *OperationDurations) Collect(to chan<- prometheus.Metric) { o.seconds.Collect(to) }

// A Wait is a user's wait for an operation on one object.
type Wait struct {
	UID       types.UID
	Operation string
	// RequestedAt is the object's creation or deletion timestamp.
	RequestedAt time.Time
	// Driver may be empty if it is unknown.
	Driver string
	// PreProvisioned is set for a pre-provisioned snapshot.
	PreProvisioned bool
}

// A firstSeen is when a wait was first observed.
type firstSeen struct {
	at     time.Time
	driver string
}

type waitKey struct {
	uid         types.UID
	requestedAt int64 // seconds since 1970; deletion is another wait
}

type doneKey struct {
	waitKey
	operation string
}

func (w *Wait) key() waitKey { return waitKey{w.UID, w.RequestedAt.Unix()} }

// Started remembers when a wait was first observed. It also remembers the driver once it is
// known: in the end, the content may be gone.
func (o *OperationDurations) Started(w Wait) {
	s, ok := o.lookup(&w)
	if ok && (s.driver != "" || w.Driver == "") {
		return
	}
	if !ok {
		s.at = o.now()
	}
	s.driver = w.Driver
	o.firstSeen.Add(w.key(), s, rememberFor)
}

// Succeeded records the duration of an operation that succeeded now.
func (o *OperationDurations) Succeeded(w Wait) { o.observe(&w, succeeded, o.now()) }

// Cancelled records the duration of an operation that was cancelled at the given time.
func (o *OperationDurations) Cancelled(w Wait, at time.Time) { o.observe(&w, cancelled, at) }

// observe records the duration of an operation once.
func (o *OperationDurations) observe(w *Wait, status string, ended time.Time) {
	key := doneKey{w.key(), w.Operation}
	if _, done := o.done.Get(key); done {
		return
	}
	o.done.Add(key, struct{}{}, rememberFor)
	s, _ := o.lookup(w)
	kind := "dynamic"
	if w.PreProvisioned {
		kind = "pre-provisioned"
	}
	took := max(0, ended.Sub(startTime(w.RequestedAt, s.at)))
	o.seconds.WithLabelValues(cmp.Or(w.Driver, s.driver, "unknown"), w.Operation, kind, status).Observe(took.Seconds())
}

func (o *OperationDurations) lookup(w *Wait) (s firstSeen, ok bool) {
	value, ok := o.firstSeen.Get(w.key())
	if ok {
		s, ok = value.(firstSeen)
	}
	return s, ok
}

// startTime estimates when a wait started. Object timestamps are truncated to whole seconds.
// If the object was not observed within that second, the middle of the second is used, so
// that means are not biased.
func startTime(requestedAt, firstSeen time.Time) time.Time {
	if firstSeen.Before(requestedAt) || !firstSeen.Before(requestedAt.Add(time.Second)) {
		return requestedAt.Add(time.Second / 2)
	}
	return firstSeen
}
