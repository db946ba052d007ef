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

// errNotOurs says that the name of a snapshot is taken.
var errNotOurs = errors.New("there is a VolumeSnapshot of that name that is not of this schedule: delete or rename it")

// spell is how long what is refused, or is to be removed, keeps a visit at most:
// the rest has its turn at another. An admission webhook that is out of reach takes
// ten seconds to be one.
const spell = 10 * time.Second

// create takes snapshots in the order of the claims' turns. A claim that is
// refused one does not take another's turn away; it tells which those are, and
// why. What s holds includes the new ones afterwards.
func (r *Reconciler) create(ctx context.Context, s *seen, todo *step) (refused map[string]string, err error) {
	refused = map[string]string{}
	free, end := todo.free, r.now().Add(spell)
	for _, p := range todo.create {
		if free == 0 || len(refused) > 0 && !r.now().Before(end) {
			break
		}
		made, err := r.take(ctx, s.schedule, p.claim)
		switch {
		case err == nil:
			free--
			r.beyond.made(client.ObjectKeyFromObject(s.schedule), made.Name)
			s.shots = append(s.shots, shotOf(made, r.clocks()))
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
	wanted := newSnapshot(s, claim, s.Status.Run)
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

// remove removes what is too many of the claims of which the cache shows too many.
// Which those are is decided again by what the API server says. If one cannot be
// removed the others are; stuck tells of those that the API server does not let go.
func (r *Reconciler) remove(ctx context.Context, s *seen, gone []*shot) (stuck string, err error) {
	var errs []error
	refused, end := map[string]error{}, r.now().Add(spell)
	for claim := range byClaim(gone) {
		due, err := r.due(ctx, s.schedule, claim)
		if err != nil {
			return "", errors.Join(append(errs, err)...)
		}
		for _, g := range due {
			err := r.drop(ctx, s, g)
			switch {
			case err == nil:
			case refusal(err):
				refused[g.name] = err
			default:
				errs = append(errs, fmt.Errorf("removing VolumeSnapshot %s: %w", g.name, err))
			}
		}
		if !r.now().Before(end) {
			break
		}
	}
	if len(refused) > 0 {
		first := slices.Min(slices.Collect(maps.Keys(refused)))
		stuck = fmt.Sprintf("%d snapshots that are not to be kept cannot be removed; VolumeSnapshot %s: %s", len(refused), first, refused[first])
	}
	return stuck, errors.Join(errs...)
}

// due are the snapshots of a claim that are not to be kept, by what the API server
// says, which tells its time with the answer.
func (r *Reconciler) due(ctx context.Context, s *v1alpha1.SnapshotSchedule, claim types.UID) ([]*shot, error) {
	list := &snapshotv1.VolumeSnapshotList{}
	err := r.live.List(ctx, list, client.InNamespace(s.Namespace), client.MatchingLabels{uidLabel: string(s.UID), claimLabel: string(claim)})
	if err != nil {
		return nil, fmt.Errorf("listing the snapshots of a claim: %w", err)
	}
	at := r.clocks()
	shots := shotsOf(list, at)
	slices.SortFunc(shots, newestFirst)
	claims := map[string]*corev1.PersistentVolumeClaim{}
	for _, one := range shots {
		if _, known := claims[one.claimName]; known {
			continue
		}
		var there *corev1.PersistentVolumeClaim
		if err := kube.GetIfExists(ctx, r.live, client.ObjectKey{Namespace: s.Namespace, Name: one.claimName}, &there); err != nil {
			return nil, err
		}
		claims[one.claimName] = there
	}
	lookUpClaims(shots, claims)
	gone, _ := expired(shots, s.Spec.Retention, at)
	return gone, nil
}

// drop removes a snapshot that is still what it was when that was decided.
func (r *Reconciler) drop(ctx context.Context, s *seen, g *shot) error {
	err := r.client.Delete(ctx,
		&snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: s.schedule.Namespace, Name: g.name}},
		client.Preconditions{UID: &g.uid, ResourceVersion: &g.version})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // It is not what it was: what changed it wakes us up.
	}
	if err != nil {
		return err
	}
	for _, known := range s.shots {
		known.deleting = known.deleting || known.uid == g.uid
	}
	snapshots.WithLabelValues("removed").Inc()
	return nil
}
