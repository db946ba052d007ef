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

// errStale says that a claim or a volume is not what it was taken for. It is no
// failure: what to do is decided again from what it is now.
var errStale = errors.New("it has changed meanwhile")

// again is how often that is done at once before it is left to a retry.
const again = 5

// record changes the claim's status on the condition that nobody has changed
// the claim since it was seen. Nothing is written if nothing changes.
func (r *Reconciler) record(ctx context.Context, s *seen, change func(*corev1.PersistentVolumeClaim)) error {
	claim := s.claim.DeepCopy()
	change(claim)
	if equality.Semantic.DeepEqual(claim, s.claim) {
		return nil
	}
	if err := stale(r.client.Status().Patch(ctx, claim, unchanged(s.claim))); err != nil {
		return fmt.Errorf("writing the status of claim %s: %w", claim.Name, err)
	}
	s.claim = claim
	return nil
}

// settle records what came of a call. People may have edited the claim
// meanwhile; that does not matter as long as the call is still the one on
// record.
func (r *Reconciler) settle(ctx context.Context, s *seen, still func(*seen) bool, change func(*corev1.PersistentVolumeClaim)) error {
	for tries := 1; ; tries++ {
		err := r.record(ctx, s, change)
		if !errors.Is(err, errStale) || tries == again {
			return err
		}
		now := &seen{claim: &corev1.PersistentVolumeClaim{}, volume: s.volume}
		if found, problem := get(ctx, r.live, client.ObjectKeyFromObject(s.claim), now.claim); problem != nil || !found {
			return problem // A claim that is gone needs no record.
		}
		if now.claim.UID != s.claim.UID || !still(now) {
			return err
		}
		s.claim = now.claim
	}
}

// setVolume changes the volume on the condition that nobody has changed it
// since it was seen; if so, what it is now is changed. Nothing is written if
// nothing changes.
func (r *Reconciler) setVolume(ctx context.Context, s *seen, change func(*corev1.PersistentVolume)) error {
	for tries := 1; ; tries++ {
		volume := s.volume.DeepCopy()
		change(volume)
		if equality.Semantic.DeepEqual(volume, s.volume) {
			return nil
		}
		err := stale(r.client.Patch(ctx, volume, unchanged(s.volume)))
		if err == nil {
			s.volume = volume
			return nil
		}
		err = fmt.Errorf("writing PersistentVolume %s: %w", volume.Name, err)
		if !errors.Is(err, errStale) || tries == again {
			return err
		}
		now := &corev1.PersistentVolume{}
		if found, problem := get(ctx, r.live, client.ObjectKeyFromObject(volume), now); problem != nil || !found || now.UID != s.volume.UID {
			return errors.Join(err, problem)
		}
		s.volume = now
	}
}

// unchanged is a patch from an object as it was seen to what it shall be, on
// the condition that it is still what was seen. A patch keeps fields that this
// program does not know, and those that its cache leaves out.
func unchanged(seen client.Object) client.Patch {
	return client.MergeFromWithOptions(seen, client.MergeFromWithOptimisticLock{})
}

func stale(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: %w", errStale, err)
	}
	return err
}
