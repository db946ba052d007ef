package schedule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// errNameTaken is returned if another VolumeSnapshot has the name.
var errNameTaken = errors.New("a VolumeSnapshot with this name exists and does not belong to this schedule: delete it")

// maxReconcileTime is after how long a reconcile stops to create rejected snapshots or to
// delete snapshots. The rest waits for the next reconcile. An unreachable admission webhook
// takes ten seconds for each request.
const maxReconcileTime = 10 * time.Second

// createSnapshots takes snapshots in the order of the claims' turns. A rejected snapshot does
// not take a slot from others. It returns the rejected claims and why. It appends the created
// snapshots to s.
func (r *Reconciler) createSnapshots(ctx context.Context, s *state, next *step) (rejected map[string]string, err error) {
	rejected = map[string]string{}
	free, end := next.free, r.now().Add(maxReconcileTime)
	for _, claim := range next.create {
		if free == 0 || len(rejected) > 0 && !r.now().Before(end) {
			break
		}
		made, err := r.createSnapshot(ctx, s.schedule, claim.claim)
		switch {
		case err == nil:
			free--
			r.expectations.expect(client.ObjectKeyFromObject(s.schedule), made.Name)
			s.snapshots = append(s.snapshots, snapshotStateOf(made, r.readClocks()))
			snapshotsTotal.WithLabelValues("created").Inc()
		case isRejection(err):
			rejected[claim.claim.Name] = err.Error()
			snapshotsTotal.WithLabelValues("refused").Inc()
		default:
			return rejected, fmt.Errorf("taking a snapshot of claim %s: %w", claim.claim.Name, err)
		}
	}
	return rejected, nil
}

// createSnapshot creates the snapshot of a claim. It succeeds if an earlier process has
// created it.
func (r *Reconciler) createSnapshot(ctx context.Context, s *v1alpha1.SnapshotSchedule, claim *corev1.PersistentVolumeClaim) (*snapshotv1.VolumeSnapshot, error) {
	wanted := newSnapshot(s, claim, s.Status.Run)
	made := wanted.DeepCopy()
	err := r.client.Create(ctx, made)
	if !apierrors.IsAlreadyExists(err) {
		return made, err
	}
	existing := &snapshotv1.VolumeSnapshot{}
	if err := r.apiReader.Get(ctx, client.ObjectKeyFromObject(wanted), existing); err != nil {
		return nil, err
	}
	if !isSameSnapshot(existing, wanted) {
		return nil, fmt.Errorf("%s: %w", wanted.Name, errNameTaken)
	}
	return existing, nil
}

// isRejection reports whether an error concerns only this snapshot, not every request to the
// API server.
func isRejection(err error) bool {
	var status apierrors.APIStatus
	if errors.Is(err, errNameTaken) {
		return true
	}
	if !errors.As(err, &status) || apierrors.IsTooManyRequests(err) || apierrors.IsTimeout(err) || apierrors.IsConflict(err) {
		return false
	}
	code := status.Status().Code
	return code >= http.StatusBadRequest && code <= http.StatusInternalServerError // 500 is the code for an unreachable webhook.
}

// deleteSnapshots deletes expired snapshots. For each of their claims, it decides again which
// are expired, based on the API server. If one deletion fails, it continues with the others.
// It returns a message about deletions that the API server rejected.
func (r *Reconciler) deleteSnapshots(ctx context.Context, s *state, gone []*snapshotState) (stuck string, err error) {
	var errs []error
	rejected, end := map[string]error{}, r.now().Add(maxReconcileTime)
	for claim := range byClaim(gone) {
		due, err := r.confirmExpired(ctx, s.schedule, claim)
		if err != nil {
			return "", errors.Join(append(errs, err)...)
		}
		for _, g := range due {
			err := r.deleteSnapshot(ctx, s, g)
			switch {
			case err == nil:
			case isRejection(err):
				rejected[g.name] = err
			default:
				errs = append(errs, fmt.Errorf("deleting VolumeSnapshot %s: %w", g.name, err))
			}
		}
		if !r.now().Before(end) {
			break
		}
	}
	if len(rejected) > 0 {
		first := slices.Min(slices.Collect(maps.Keys(rejected)))
		stuck = fmt.Sprintf("%d expired snapshots cannot be deleted; VolumeSnapshot %s: %s", len(rejected), first, rejected[first])
	}
	return stuck, errors.Join(errs...)
}

// confirmExpired returns a claim's expired snapshots according to the API server. The response
// also updates the API server's time.
func (r *Reconciler) confirmExpired(ctx context.Context, s *v1alpha1.SnapshotSchedule, claim types.UID) ([]*snapshotState, error) {
	list := &snapshotv1.VolumeSnapshotList{}
	err := r.apiReader.List(ctx, list, client.InNamespace(s.Namespace), client.MatchingLabels{uidLabel: string(s.UID), claimLabel: string(claim)})
	if err != nil {
		return nil, fmt.Errorf("listing the snapshots of a claim: %w", err)
	}
	at := r.readClocks()
	snapshots := snapshotStatesOf(list, at)
	slices.SortFunc(snapshots, compareNewestFirst)
	claims := map[string]*corev1.PersistentVolumeClaim{}
	for _, one := range snapshots {
		if _, known := claims[one.claimName]; known {
			continue
		}
		var existing *corev1.PersistentVolumeClaim
		if err := kube.GetIfExists(ctx, r.apiReader, client.ObjectKey{Namespace: s.Namespace, Name: one.claimName}, &existing); err != nil {
			return nil, err
		}
		claims[one.claimName] = existing
	}
	resolveClaims(snapshots, claims)
	gone, _ := expired(snapshots, s.Spec.Retention, at)
	return gone, nil
}

// deleteSnapshot deletes a snapshot unless it has changed since the decision.
func (r *Reconciler) deleteSnapshot(ctx context.Context, s *state, expired *snapshotState) error {
	err := r.client.Delete(ctx,
		&snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: s.schedule.Namespace, Name: expired.name}},
		client.Preconditions{UID: &expired.uid, ResourceVersion: &expired.resourceVersion})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // It has changed, and the change triggers a reconcile.
	}
	if err != nil {
		return err
	}
	for _, other := range s.snapshots {
		other.deleting = other.deleting || other.uid == expired.uid
	}
	snapshotsTotal.WithLabelValues("removed").Inc()
	return nil
}
