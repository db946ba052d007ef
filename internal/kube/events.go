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
	// repeatAfter is how long an event is not sent again while nothing has
	// changed. It is well below the hour that API servers keep events.
	repeatAfter = 20 * time.Minute
	// remembered bounds the memory for that.
	remembered = 4096
	// messageLimit is what the API takes as an event's message, in bytes.
	messageLimit = 1024
)

// Events tells users, at the object where they look, what happens to it. An
// event that only repeats the last one about the object is not sent: a retry
// is no news. Forgetting that over a restart costs one repetition.
type Events struct {
	recorder  record.EventRecorder
	component string
	last      *cache.LRUExpireCache
}

type said struct{ reason, message string }

// NewEvents sends events in the name of component, which must be the same in
// every process that does the same work: the API server counts repetitions by
// it. It stops when ctx ends.
//
// Events go to the core API group, where the roles that this program replaces
// have the right to write. The client is the one of that group, for a whole
// clientset makes the program, and with it every process, a good deal larger.
func NewEvents(ctx context.Context, c typedcorev1.EventsGetter, scheme *runtime.Scheme, component string) *Events {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.Events("")})
	events := NewEventsWithRecorder(broadcaster.NewRecorder(scheme, corev1.EventSource{Component: component}))
	events.component = component
	return events
}

// NewEventsWithRecorder sends events to a recorder.
func NewEventsWithRecorder(recorder record.EventRecorder) *Events {
	return &Events{recorder: recorder, last: cache.NewLRUExpireCache(remembered)}
}

// Normal tells good news, or news.
func (e *Events) Normal(about client.Object, reason, message string) {
	e.send(about, corev1.EventTypeNormal, reason, message)
}

// Warning tells what somebody may have to act upon.
func (e *Events) Warning(about client.Object, reason, message string) {
	e.send(about, corev1.EventTypeWarning, reason, message)
}

func (e *Events) send(about client.Object, kind, reason, message string) {
	news := said{reason, Truncate(message, messageLimit)}
	if e.repeats(about, news) {
		return
	}
	e.last.Add(eventKey(about), news, repeatAfter)
	e.recorder.Event(about, kind, reason, news.message)
}

func (e *Events) repeats(about client.Object, news said) bool {
	last, ok := e.last.Get(eventKey(about))
	return ok && last == news
}

// Eventf makes Events the recorder of leader election, whose events are always
// news.
func (e *Events) Eventf(about runtime.Object, kind, reason, format string, args ...any) {
	e.recorder.Eventf(about, kind, reason, format, args...)
}

func eventKey(o client.Object) types.UID { return o.GetUID() }
