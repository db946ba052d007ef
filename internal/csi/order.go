package csi

import (
	"context"
	"fmt"
	"sync"
)

// order lets one call at a time through for each key: the CSI specification
// ("Concurrency") makes the caller responsible for at most one call in flight
// per volume, and its snapshot calls say the same per snapshot. It keeps
// nothing about a key that no call holds or waits for.
type order struct {
	mu    sync.Mutex
	turns map[string]*turn
}

type turn struct {
	taken chan struct{} // holds one token while a call runs; waiting senders are served first come, first served
	users int           // calls that run or wait
}

// acquire waits for the key's turn and returns the function that ends it. It
// gives up with the error of ctx.
func (o *order) acquire(ctx context.Context, key string) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err // select would pick at random if the turn were free too
	}
	t := o.join(key)
	select {
	case t.taken <- struct{}{}:
		return func() { <-t.taken; o.leave(key, t) }, nil
	case <-ctx.Done():
		o.leave(key, t)
		return nil, ctx.Err()
	}
}

func (o *order) join(key string) *turn {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.turns == nil {
		o.turns = make(map[string]*turn)
	}
	t := o.turns[key]
	if t == nil {
		t = &turn{taken: make(chan struct{}, 1)}
		o.turns[key] = t
	}
	t.users++
	return t
}

func (o *order) leave(key string, t *turn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if t.users--; t.users == 0 {
		delete(o.turns, key)
	}
}

// What a call is about. A volume is known by its name until CreateVolume has
// answered and by its id from then on, and a snapshot likewise; words and
// quotes keep the four apart, whatever drivers call things. A call about a
// snapshot does not hold its source volume, nor a clone its source: the
// specification does not ask for it, and a detach must not wait for a copy.
func volumeNamed(name string) string   { return fmt.Sprintf("volume named %q", name) }
func volumeID(id string) string        { return fmt.Sprintf("volume %q", id) }
func snapshotNamed(name string) string { return fmt.Sprintf("snapshot named %q", name) }
func snapshotID(id string) string      { return fmt.Sprintf("snapshot %q", id) }
