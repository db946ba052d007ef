package snapshot

import (
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// sidecarTimeout is how long the driver's half may take to begin. After that the user
// is told that nobody does.
const sidecarTimeout = 30 * time.Second

// A SidecarWait is what the cluster's half waits for: that a csi-snapshotter begins
// with a content.
type SidecarWait struct {
	Reason      string // of the event, if none does
	ContentKind string
	Needs       string // what it takes beside one that runs; may be empty
}

// Check is told to the user for whom the content is when no csi-snapshotter
// has begun with it in time; before, it is nil, and the time that is left. It
// counts from when both are there, for a content may have been made long before.
func (w SidecarWait) Check(user, content client.Object, driver string, now time.Time) (*Problem, time.Duration) {
	since := content.GetCreationTimestamp()
	if created := user.GetCreationTimestamp(); created.After(since.Time) {
		since = created
	}
	if left := sidecarTimeout - now.Sub(since.Time); left > 0 {
		return nil, left
	}
	return Problemf(w.Reason, "no csi-snapshotter of driver %s has begun with %s %s: is one running%s?", driver, w.ContentKind, content.GetName(), w.Needs), 0
}

// CreationStarted tells whether the driver's half has begun with a content that has no
// status: then its mark is on it.
func (k *Keys) CreationStarted(content client.Object) bool {
	_, ok := content.GetAnnotations()[k.BeingCreated]
	return ok
}
