package snapshot

import (
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// sidecarTimeout is how long csi-snapshotter may take to start. After that, an event tells the
// user that none seems to be running.
const sidecarTimeout = 30 * time.Second

// A SidecarWait is snapshot-controller's wait for a csi-snapshotter to start with a content.
type SidecarWait struct {
	Reason      string // of the event if none starts
	ContentKind string
	Needs       string // appended to the question whether one is running; may be empty
}

// Check returns the Problem to report if no csi-snapshotter has started in time. Before that,
// it returns nil and the time left. The time starts when both objects exist: a
// pre-provisioned content may be much older than its snapshot.
func (w SidecarWait) Check(user, content client.Object, driver string, now time.Time) (*Problem, time.Duration) {
	since := content.GetCreationTimestamp()
	if created := user.GetCreationTimestamp(); created.After(since.Time) {
		since = created
	}
	if left := sidecarTimeout - now.Sub(since.Time); left > 0 {
		return nil, left
	}
	return Problemf(w.Reason, "no csi-snapshotter of driver %s has started to work on %s %s: is one running%s?", driver, w.ContentKind, content.GetName(), w.Needs), 0
}

// CheckDeletion is like Check, for a content that is being deleted and about which no
// csi-snapshotter has reported an error since. lastError is an older one, or empty.
func (w SidecarWait) CheckDeletion(content client.Object, driver, lastError string, now time.Time) (*Problem, time.Duration) {
	if left := sidecarTimeout - now.Sub(content.GetDeletionTimestamp().Time); left > 0 {
		return nil, left
	}
	problem := Problemf(w.Reason, "%s %s is being deleted, and no csi-snapshotter of driver %s has deleted its snapshot within %s, or reported why not: is one running%s?",
		w.ContentKind, content.GetName(), driver, sidecarTimeout, w.Needs)
	if lastError != "" {
		problem.Text += " The last error before the deletion: " + lastError
	}
	return problem, 0
}

// CreationStarted reports whether csi-snapshotter has started to create the snapshot of a
// content without status: the content has the being-created annotation.
func (k *Keys) CreationStarted(content client.Object) bool {
	_, ok := content.GetAnnotations()[k.BeingCreated]
	return ok
}
