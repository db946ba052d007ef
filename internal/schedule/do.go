package schedule

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// errNotOurs says that the name of a snapshot is taken.
var errNotOurs = errors.New("there is a VolumeSnapshot of that name that is not of this schedule: delete or rename it")

// create takes snapshots in the order of the claims' turns. A claim that is
// refused one does not take another's turn away; it tells which those are, and
// why. What s holds includes the new ones afterwards.
func (r *Reconciler) create(ctx context.Context, s *seen, todo *step) (refused map[string]string, err error) {
	refused = map[string]string{}
	free := todo.free
	for _, p := range todo.create {
		if free == 0 {
			break
		}
		made, err := r.take(ctx, s.schedule, p.claim)
		switch {
		case err == nil:
			free--
			s.shots = append(s.shots, shotOf(made, r.now()))
			snapshots.WithLabelValues("created").Inc()
		case refusal(err):
			refused[p.claim.Name] = err.Error()
			snapshots.WithLabelValues("refused").Inc()
		default:
			return refused, fmt.Errorf("taking a snapshot of claim %s: %w", p.claim.Name, err)
		}
	}
	return refused, nil
}

// take makes the snapshot of a claim. One that a predecessor has made is as
// good.
func (r *Reconciler) take(ctx context.Context, s *v1alpha1.SnapshotSchedule, claim *corev1.PersistentVolumeClaim) (*snapshotv1.VolumeSnapshot, error) {
	wanted := newSnapshot(s, claim, s.Status.Run.Time.Time)
	made := wanted.DeepCopy()
	err := r.client.Create(ctx, made)
	if !apierrors.IsAlreadyExists(err) {
		return made, err
	}
	there := &snapshotv1.VolumeSnapshot{}
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(wanted), there); err != nil {
		return nil, err
	}
	if !same(there, wanted) {
		return nil, fmt.Errorf("%s: %w", wanted.Name, errNotOurs)
	}
	return there, nil
}

// refusal tells whether an error is about one snapshot, and not about all that
// might be sent to the API server now.
func refusal(err error) bool {
	var status apierrors.APIStatus
	if errors.Is(err, errNotOurs) {
		return true
	}
	if !errors.As(err, &status) || apierrors.IsTooManyRequests(err) || apierrors.IsTimeout(err) || apierrors.IsConflict(err) {
		return false
	}
	code := status.Status().Code
	return code >= http.StatusBadRequest && code <= http.StatusInternalServerError // 500 is what a webhook out of reach leads to.
}

// remove removes snapshots that are still what they were when that was decided.
// If one cannot be removed the others are.
func (r *Reconciler) remove(ctx context.Context, s *seen, gone []*shot) error {
	var errs []error
	for _, g := range gone {
		err := r.client.Delete(ctx,
			&snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: s.schedule.Namespace, Name: g.name}},
			client.Preconditions{UID: &g.uid, ResourceVersion: &g.version})
		switch {
		case err == nil:
			g.deleting = true
			snapshots.WithLabelValues("removed").Inc()
		case apierrors.IsNotFound(err), apierrors.IsConflict(err):
			// It is not what it was: what changed it wakes us up.
		default:
			errs = append(errs, fmt.Errorf("removing VolumeSnapshot %s: %w", g.name, err))
		}
	}
	return errors.Join(errs...)
}
