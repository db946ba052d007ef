// Package keymutex provides a mutex per key.
package keymutex

import (
	"context"
	"sync"
)

// KeyMutex is a mutex per key. Waiters get it in their order. A key that nobody holds or
// waits for needs no memory. The zero value is ready for use.
type KeyMutex struct {
	mu      sync.Mutex
	entries map[string]*entry
}

type entry struct {
	locked chan struct{} // holds one token while the mutex is locked; Go serves waiting senders in their order
	users  int           // number of holders and waiters
}

// Lock locks the key's mutex and returns the function that unlocks it. It returns the
// error of ctx if that ends first.
func (m *KeyMutex) Lock(ctx context.Context, key string) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err // select would choose at random if the mutex is free
	}
	e := m.acquireEntry(key)
	select {
	case e.locked <- struct{}{}:
		return func() { <-e.locked; m.releaseEntry(key, e) }, nil
	case <-ctx.Done():
		m.releaseEntry(key, e)
		return nil, ctx.Err()
	}
}

func (m *KeyMutex) acquireEntry(key string) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries == nil {
		m.entries = make(map[string]*entry)
	}
	e := m.entries[key]
	if e == nil {
		e = &entry{locked: make(chan struct{}, 1)}
		m.entries[key] = e
	}
	e.users++
	return e
}

func (m *KeyMutex) releaseEntry(key string, e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.users--; e.users == 0 {
		delete(m.entries, key)
	}
}
