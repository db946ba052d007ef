package resize

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// errConflict says that a claim or a volume is not what it was taken for. It is no
// failure: what to do is decided again from what it is now.
var errConflict = errors.New("it has changed meanwhile")

// maxAttempts is how often that is done at once before it is left to a retry.
const maxAttempts = 5

// patchClaimStatus changes the claim's status on the condition that nobody has changed
// the claim since it was seen. Nothing is written if nothing changes.
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

// recordResult records what came of a call. People may have edited the claim
// meanwhile; that does not matter as long as the call is still the one on
// record.
func (r *Reconciler) recordResult(ctx context.Context, s *state, isCurrent func(*state) bool, change func(*corev1.PersistentVolumeClaim)) error {
	for tries := 1; ; tries++ {
		err := r.patchClaimStatus(ctx, s, change)
		if !errors.Is(err, errConflict) || tries == maxAttempts {
			return err
		}
		current := &state{claim: &corev1.PersistentVolumeClaim{}, volume: s.volume}
		if found, getErr := get(ctx, r.apiReader, client.ObjectKeyFromObject(s.claim), current.claim); getErr != nil || !found {
			return getErr // A claim that is gone needs no record.
		}
		if current.claim.UID != s.claim.UID || !isCurrent(current) {
			return err
		}
		s.claim = current.claim
	}
}

// patchVolume changes the volume on the condition that nobody has changed it
// since it was seen; if so, what it is now is changed. Nothing is written if
// nothing changes.
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
		current := &corev1.PersistentVolume{}
		if found, getErr := get(ctx, r.apiReader, client.ObjectKeyFromObject(volume), current); getErr != nil || !found || current.UID != s.volume.UID {
			return errors.Join(err, getErr)
		}
		s.volume = current
	}
}

// mergeFromUnchanged is a patch from an object as it was seen to what it shall be, on
// the condition that it is still what was seen. A patch keeps fields that this
// program does not know, and those that its cache leaves out.
func mergeFromUnchanged(observed client.Object) client.Patch {
	return client.MergeFromWithOptions(observed, client.MergeFromWithOptimisticLock{})
}

func wrapConflict(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: %w", errConflict, err)
	}
	return err
}
