// Package keymutex lets one at a time through for each key.
package keymutex

import (
	"context"
	"sync"
)

// KeyMutex lets one at a time through for each key, first come, first served. It
// keeps nothing about a key that nobody holds or waits for. The zero value is
// ready for use.
type KeyMutex struct {
	mu    sync.Mutex
	turns map[string]*entry
}

type entry struct {
	taken chan struct{} // holds one token while somebody has the turn; waiting senders are served in their order
	users int           // who have it or wait
}

// Lock waits for the key's turn and returns the function that ends it. It gives
// up with the error of ctx.
func (t *KeyMutex) Lock(ctx context.Context, key string) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err // select would pick at random if the turn were free too
	}
	mine := t.join(key)
	select {
	case mine.taken <- struct{}{}:
		return func() { <-mine.taken; t.leave(key, mine) }, nil
	case <-ctx.Done():
		t.leave(key, mine)
		return nil, ctx.Err()
	}
}

func (t *KeyMutex) join(key string) *entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.turns == nil {
		t.turns = make(map[string]*entry)
	}
	mine := t.turns[key]
	if mine == nil {
		mine = &entry{taken: make(chan struct{}, 1)}
		t.turns[key] = mine
	}
	mine.users++
	return mine
}

func (t *KeyMutex) leave(key string, mine *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mine.users--; mine.users == 0 {
		delete(t.turns, key)
	}
}
