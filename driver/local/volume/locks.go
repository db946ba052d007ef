package volume

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// keyLocks serialises calls per ID. A second call waits for the first instead of
// being turned away: it is mostly a repeat, and gets the first one's result the
// moment that is there instead of after a backoff. It waits as long as its
// caller does. Locks of different IDs never block each other, which a fixed set of
// hashed locks could not promise to a call that needs two.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// lock takes the locks of all ids, in an order that two calls cannot dispute.
func (l *keyLocks) lock(ctx context.Context, ids ...string) (unlock func(), err error) {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	for i, id := range ids {
		if err := l.one(ctx, id); err != nil {
			l.release(ids[:i])
			return nil, err
		}
	}
	return func() { l.release(ids) }, nil
}

func (l *keyLocks) one(ctx context.Context, id string) error {
	for {
		l.mu.Lock()
		busy, held := l.held[id]
		if !held {
			l.held[id] = make(chan struct{})
			l.mu.Unlock()
			return nil
		}
		l.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return fmt.Errorf("%w on %s: %w", ErrPending, id, ctx.Err())
		}
	}
}

func (l *keyLocks) release(ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		close(l.held[id])
		delete(l.held, id)
	}
}
