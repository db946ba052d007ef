package schedule

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

const (
	// nameLabel and uidLabel on a child are the name and the UID of its schedule. The UID
	// decides: a schedule that is created again with the same name does not delete the children
	// of its predecessor, which may all be too old for it.
	nameLabel = snapshot.ScheduleName
	uidLabel  = snapshot.ScheduleUID
	// runAnnotation on a child is the time of its run.
	runAnnotation = snapshot.ScheduleRun
	// runIDAnnotation on a child is the ID of its run, if that has one.
	runIDAnnotation = snapshot.ScheduleRunID
)

// nameLimit keeps names short enough for labels, because tools use them as such. The hash
// prevents collisions of truncated names.
const nameLimit = 63

// childName derives a name from the UIDs of schedule and target and the time and the ID of
// the run. It is readable: TARGET-DATE-TIME-HASH, in UTC.
func childName(schedule types.UID, t *target, run *v1alpha1.Run) string {
	what := string(schedule) + "/" + string(t.UID) + "/" + formatTime(run.Time.Time)
	if run.ID != "" {
		what += "/" + run.ID
	}
	sum := sha256.Sum256([]byte(what))
	tail := fmt.Sprintf("-%s-%s", run.Time.UTC().Format("20060102-150405"), hex.EncodeToString(sum[:5]))
	head := t.Name
	if most := nameLimit - len(tail); len(head) > most {
		head = strings.TrimRight(head[:most], "-.")
	}
	return head + tail
}

// formatTime formats a run's time.
func formatTime(run time.Time) string { return run.UTC().Format(time.RFC3339) }

// newChildFor returns the child of a target for a run. It has no owner reference, so it is
// kept when its schedule or its target is deleted.
func newChildFor(k kind, s *schedule, t *target, run *v1alpha1.Run) client.Object {
	child := k.childFor(s, t)
	labels, annotations := cloneOrMake(child.GetLabels()), cloneOrMake(child.GetAnnotations())
	labels[nameLabel], labels[uidLabel], labels[s.terms.targetLabel] = s.Name, string(s.UID), string(t.UID)
	annotations[runAnnotation] = formatTime(run.Time.Time)
	if run.ID != "" {
		annotations[runIDAnnotation] = run.ID
	}
	child.SetNamespace(s.Namespace)
	child.SetName(childName(s.UID, t, run))
	child.SetLabels(labels)
	child.SetAnnotations(annotations)
	return child
}

// cloneOrMake copies a map of the template. The result is never nil.
func cloneOrMake(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}

// isSameChild reports whether an existing child is the one to create.
func isSameChild(t *terms, existing, wanted client.Object) bool {
	for _, label := range []string{uidLabel, t.targetLabel} {
		if existing.GetLabels()[label] != wanted.GetLabels()[label] {
			return false
		}
	}
	for _, annotation := range []string{runAnnotation, runIDAnnotation} {
		if existing.GetAnnotations()[annotation] != wanted.GetAnnotations()[annotation] {
			return false
		}
	}
	return true
}
