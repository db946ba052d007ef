package kube

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/cache"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// repeatAfter is how long an unchanged event is not sent again. It is well below
	// the hour for which API servers keep events.
	repeatAfter = 20 * time.Minute
	// maxObjects is the number of objects whose last event is remembered.
	maxObjects = 4096
)

// Events sends events about objects. It does not send an event that only repeats the
// last one about the same object, such as that of a retry. After a restart an event is
// repeated once.
type Events struct {
	recorder  record.EventRecorder
	component string
	last      *cache.LRUExpireCache
}

// content is what distinguishes an event from the last one about its object.
type content struct{ reason, message string }

// NewEvents sends events with component as their source until ctx ends. The component
// must be the same in every process that does the same work: client-go counts
// repetitions by it.
//
// Events go to the core API group, because the RBAC rules of upstream's sidecars allow
// that. The client is that of this group only: a whole clientset would make the binary
// and each process much larger.
func NewEvents(ctx context.Context, c typedcorev1.EventsGetter, scheme *runtime.Scheme, component string) *Events {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.Events("")})
	events := NewEventsWithRecorder(broadcaster.NewRecorder(scheme, corev1.EventSource{Component: component}))
	events.component = component
	return events
}

// NewEventsWithRecorder sends events to recorder.
func NewEventsWithRecorder(recorder record.EventRecorder) *Events {
	return &Events{recorder: recorder, last: cache.NewLRUExpireCache(maxObjects)}
}

// Normal sends an event of type Normal.
func (e *Events) Normal(about client.Object, reason, message string) {
	e.send(about, corev1.EventTypeNormal, reason, message)
}

// Warning sends an event of type Warning, which a user may have to act on.
func (e *Events) Warning(about client.Object, reason, message string) {
	e.send(about, corev1.EventTypeWarning, reason, message)
}

// WarnIfDenied sends a warning about an object if the API server has denied a request for
// it. Other failed requests do not concern users.
func (e *Events) WarnIfDenied(about client.Object, reason string, err error) {
	if IsDenied(err) {
		e.Warning(about, reason, Message(err))
	}
}

func (e *Events) send(about client.Object, eventType, reason, message string) {
	event := content{reason, Truncate(message, MessageLimit)}
	if e.isRepetition(about, event) {
		return
	}
	e.last.Add(eventKey(about), event, repeatAfter)
	e.recorder.Event(about, eventType, reason, event.message)
}

func (e *Events) isRepetition(about client.Object, event content) bool {
	last, ok := e.last.Get(eventKey(about))
	return ok && last == event
}

// Eventf implements resourcelock.EventRecorder. Events of leader election are always
// sent.
func (e *Events) Eventf(about runtime.Object, eventType, reason, format string, args ...any) {
	e.recorder.Eventf(about, eventType, reason, format, args...)
}

func eventKey(o client.Object) types.UID { return o.GetUID() }
