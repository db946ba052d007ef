package resize

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// errConflict means that a claim or a volume has changed since it was observed.
// It is not a failure: the next step is decided again from the current state.
var errConflict = errors.New("the object has changed")

// maxAttempts is how often a conflict is retried at once before the claim is
// requeued.
const maxAttempts = 5

// patchClaimStatus changes the claim's status if the claim has not changed
// since it was observed. It writes nothing if the change has no effect.
func (r *Reconciler) patchClaimStatus(ctx context.Context, s *state, change func(*corev1.PersistentVolumeClaim)) error {
	claim := s.claim.DeepCopy()
	change(claim)
	if equality.Semantic.DeepEqual(claim, s.claim) {
		return nil
	}
	if err := wrapConflict(r.client.Status().Patch(ctx, claim, mergeFromUnchanged(s.claim))); err != nil {
		return fmt.Errorf("writing the status of claim %s: %w", claim.Name, err)
	}
	s.claim = claim
	return nil
}

// recordResult records the result of a call. A concurrent change of the claim
// does not matter as long as the call is still the recorded operation.
func (r *Reconciler) recordResult(ctx context.Context, s *state, isCurrent func(*state) bool, change func(*corev1.PersistentVolumeClaim)) error {
	for tries := 1; ; tries++ {
		err := r.patchClaimStatus(ctx, s, change)
		if !errors.Is(err, errConflict) || tries == maxAttempts {
			return err
		}
		current := &state{volume: s.volume}
		if getErr := kube.GetIfExists(ctx, r.apiReader, client.ObjectKeyFromObject(s.claim), &current.claim); getErr != nil || current.claim == nil {
			return getErr // If the claim is gone there is nothing to record.
		}
		if current.claim.UID != s.claim.UID || !isCurrent(current) {
			return err
		}
		s.claim = current.claim
	}
}

// patchVolume changes the volume if it has not changed since it was observed.
// After a conflict it changes the current volume. It writes nothing if the
// change has no effect.
func (r *Reconciler) patchVolume(ctx context.Context, s *state, change func(*corev1.PersistentVolume)) error {
	for tries := 1; ; tries++ {
		volume := s.volume.DeepCopy()
		change(volume)
		if equality.Semantic.DeepEqual(volume, s.volume) {
			return nil
		}
		err := wrapConflict(r.client.Patch(ctx, volume, mergeFromUnchanged(s.volume)))
		if err == nil {
			s.volume = volume
			return nil
		}
		err = fmt.Errorf("writing PersistentVolume %s: %w", volume.Name, err)
		if !errors.Is(err, errConflict) || tries == maxAttempts {
			return err
		}
		var current *corev1.PersistentVolume
		if getErr := kube.GetIfExists(ctx, r.apiReader, client.ObjectKeyFromObject(volume), &current); getErr != nil || current == nil || current.UID != s.volume.UID {
			return errors.Join(err, getErr)
		}
		s.volume = current
	}
}

// mergeFromUnchanged returns a patch that fails if the object has changed since
// it was observed. Unlike an update, a patch keeps fields that this program or
// its cache does not know.
func mergeFromUnchanged(observed client.Object) client.Patch {
	return client.MergeFromWithOptions(observed, client.MergeFromWithOptimisticLock{})
}

func wrapConflict(err error) error {
	if kube.IsStale(err) {
		return fmt.Errorf("%w: %w", errConflict, err)
	}
	return err
}
