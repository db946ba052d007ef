package provision

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
)

// cacheTimeout bounds how long to wait for the cache. It shows a write of this process
// within milliseconds, unless the API server is overloaded.
const cacheTimeout = 2 * time.Second

// volumeWaiter wakes those who wait until the cache shows the volume of a claim. It is
// woken by the events of the informer: while the API server is slow, a hundred workers
// wait, and should do nothing else.
type volumeWaiter struct {
	mu      sync.Mutex
	waiting map[types.UID]chan struct{} // by UID of the claim; closed when there is a volume
}

// setup adds the waiter to the informer of PersistentVolumes.
func (w *volumeWaiter) setup(ctx context.Context, m ctrl.Manager) error {
	informer, err := m.GetCache().GetInformer(ctx, &corev1.PersistentVolume{})
	if err != nil {
		return fmt.Errorf("watching PersistentVolumes: %w", err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    w.wake,
		UpdateFunc: func(_, o any) { w.wake(o) },
	})
	if err != nil {
		return fmt.Errorf("watching PersistentVolumes: %w", err)
	}
	return nil
}

// wake wakes those who wait for a volume that the cache shows.
func (w *volumeWaiter) wake(o any) {
	volume, ok := o.(*corev1.PersistentVolume)
	if !ok || volume.Spec.ClaimRef == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if seen, ok := w.waiting[volume.Spec.ClaimRef.UID]; ok {
		close(seen)
		delete(w.waiting, volume.Spec.ClaimRef.UID)
	}
}

// expect returns a channel that is closed when the cache shows a volume of the claim from
// now on, and the function that ends waiting.
func (w *volumeWaiter) expect(claim types.UID) (seen <-chan struct{}, done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == nil {
		w.waiting = map[types.UID]chan struct{}{}
	}
	c := make(chan struct{})
	w.waiting[claim] = c // One worker at a time works on a claim.
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.waiting[claim] == c {
			delete(w.waiting, claim)
		}
	}
}

// waitForCache returns when the cache shows the PersistentVolume of a claim, or after a
// while. A reconcile of the claim in between would find neither the PersistentVolume nor,
// soon, an operation. It would record an operation and call the driver once more, which
// is harmless but useless.
func (r *Reconciler) waitForCache(ctx context.Context, claim types.UID) {
	seen, done := r.volumes.expect(claim)
	defer done()
	if volume, err := r.volumeForClaim(ctx, claim); volume != nil || err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cacheTimeout)
	defer cancel()
	select {
	case <-seen:
	case <-ctx.Done():
	}
}
