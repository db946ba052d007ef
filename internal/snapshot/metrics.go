package snapshot

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/cache"
)

// Operations that users wait for, as the metric calls them.
const (
	OperationCreate = "CreateSnapshot"         // until the snapshot is cut
	OperationReady  = "CreateSnapshotAndReady" // until it can be restored from
	OperationDelete = "DeleteSnapshot"         // until nothing of it is left
)

// How an operation ended.
const (
	succeeded = "success"
	cancelled = "cancel" // whoever had asked for it has deleted the object
)

// OperationDurations measures how long users wait. Names, labels and buckets are those of
// the program whose place the cluster's half takes, for dashboards are made for
// them.
//
// When an operation began is read from the object, so a restart loses none. That
// is in whole seconds; who has seen the object when it was new knows better, and
// only that is kept in memory.
type OperationDurations struct {
	seconds   *prometheus.HistogramVec
	firstSeen *cache.LRUExpireCache // sights by sightKey
	done      *cache.LRUExpireCache // by doneKey: who looks into a cache that lags sees the end again
	now       func() time.Time
}

// OperationMetrics are the operations of this process, of single snapshots and of groups.
var OperationMetrics = NewOperationDurations()

const (
	// maxRemembered bounds how many objects are remembered, and keptFor how long: of
	// what takes that long a second does not matter.
	maxRemembered = 4096
	rememberFor   = 10 * time.Minute
)

// NewOperationDurations makes the metric. It must be registered.
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

// A Wait is that of a user for an operation on one object.
type Wait struct {
	UID       types.UID
	Operation string
	// RequestedAt is the object's own time for it: when it was made, or deleted.
	RequestedAt time.Time
	// Driver may be empty if it is not known any more.
	Driver string
	// PreProvisioned is set for a snapshot that was at the driver before the object.
	PreProvisioned bool
}

// A firstSeen is when somebody was first seen waiting.
type firstSeen struct {
	at     time.Time
	driver string
}

type waitKey struct {
	uid         types.UID
	requestedAt int64 // seconds since 1970: what is deleted waits anew
}

type doneKey struct {
	waitKey
	operation string
}

func (w *Wait) key() waitKey { return waitKey{w.UID, w.RequestedAt.Unix()} }

// Started notes that somebody waits, the first time that it is told, and the driver
// as soon as it is known: its content may be gone in the end.
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

// Succeeded measures an operation that has ended now.
func (o *OperationDurations) Succeeded(w Wait) { o.observe(&w, succeeded, o.now()) }

// Cancelled measures an operation that was given up at some time.
func (o *OperationDurations) Cancelled(w Wait, at time.Time) { o.observe(&w, cancelled, at) }

// observe measures an operation once.
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

// startTime is when a wait began, as well as can be told. Timestamps of objects are
// cut to whole seconds. Without a first sight within that second its middle is
// the best guess: nobody's mean is wrong then.
func startTime(requestedAt, firstSeen time.Time) time.Time {
	if firstSeen.Before(requestedAt) || !firstSeen.Before(requestedAt.Add(time.Second)) {
		return requestedAt.Add(time.Second / 2)
	}
	return firstSeen
}
