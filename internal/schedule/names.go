package schedule

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

const (
	// nameLabel and uidLabel on a snapshot are the name and the UID of its schedule. The UID
	// decides: a schedule that is created again with the same name does not delete the snapshots
	// of its predecessor, which may all be too old for it.
	nameLabel = "schedule.holdfast.io/name"
	uidLabel  = "schedule.holdfast.io/uid"
	// claimLabel on a snapshot is the UID of its claim. Another claim may have the name by now.
	claimLabel = snapshot.ClaimUID
	// runAnnotation on a snapshot is the time of its run.
	runAnnotation = "schedule.holdfast.io/run"
	// runIDAnnotation on a snapshot is the ID of its run, if that has one.
	runIDAnnotation = "schedule.holdfast.io/run-id"
)

// nameLimit keeps names short enough for labels, because tools use them as such. The hash
// prevents collisions of truncated names.
const nameLimit = 63

// snapshotName derives a name from the UIDs of schedule and claim and the time and the ID of
// the run. It is readable: CLAIM-DATE-TIME-HASH, in UTC.
func snapshotName(schedule types.UID, claim *corev1.PersistentVolumeClaim, run *v1alpha1.Run) string {
	what := string(schedule) + "/" + string(claim.UID) + "/" + formatTime(run.Time.Time)
	if run.ID != "" {
		what += "/" + run.ID
	}
	sum := sha256.Sum256([]byte(what))
	tail := fmt.Sprintf("-%s-%s", run.Time.UTC().Format("20060102-150405"), hex.EncodeToString(sum[:5]))
	head := claim.Name
	if most := nameLimit - len(tail); len(head) > most {
		head = strings.TrimRight(head[:most], "-.")
	}
	return head + tail
}

// formatTime formats a run's time.
func formatTime(run time.Time) string { return run.UTC().Format(time.RFC3339) }

// newSnapshot returns the snapshot of a claim for a run. It has no owner reference, so it is
// kept when its schedule is deleted.
func newSnapshot(s *v1alpha1.SnapshotSchedule, claim *corev1.PersistentVolumeClaim, run *v1alpha1.Run) *snapshotv1.VolumeSnapshot {
	template := &s.Spec.SnapshotTemplate
	labels, annotations := maps.Clone(template.Labels), maps.Clone(template.Annotations)
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels[nameLabel], labels[uidLabel], labels[claimLabel] = s.Name, string(s.UID), string(claim.UID)
	annotations[runAnnotation] = formatTime(run.Time.Time)
	if run.ID != "" {
		annotations[runIDAnnotation] = run.ID
	}
	return &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: snapshotName(s.UID, claim, run), Labels: labels, Annotations: annotations,
		},
		Spec: snapshotv1.VolumeSnapshotSpec{
			Source:                  snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: &claim.Name},
			VolumeSnapshotClassName: template.SnapshotClassName,
		},
	}
}

// isSameSnapshot reports whether an existing snapshot is the one to create.
func isSameSnapshot(existing, wanted *snapshotv1.VolumeSnapshot) bool {
	return existing.Labels[uidLabel] == wanted.Labels[uidLabel] && existing.Labels[claimLabel] == wanted.Labels[claimLabel] &&
		existing.Annotations[runAnnotation] == wanted.Annotations[runAnnotation] && existing.Annotations[runIDAnnotation] == wanted.Annotations[runIDAnnotation]
}
