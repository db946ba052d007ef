package volume

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// keyLocks serialises calls per ID. A second call waits for the first instead of
// being turned away: it is mostly a repeat, and gets the first one's result the
// moment that is there instead of after a backoff. It waits as long as its
// caller does. Locks of different IDs never block each other, which a fixed set of
// hashed locks could not promise to a call that needs two.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
	// file is "" unless other processes are to be kept out too: then each lock is
	// a byte of this file, which the kernel gives to one open file at a time and
	// takes back from a process that dies.
	file string
}

// lock takes the locks of all ids, in an order that two calls cannot dispute.
// With a ctx that has ended it takes what is free at once.
func (l *keyLocks) lock(ctx context.Context, ids ...string) (unlock func(), err error) {
	slices.Sort(ids)
	var held []func()
	unlock = func() {
		for _, release := range slices.Backward(held) {
			release()
		}
	}
	for _, id := range slices.Compact(ids) {
		release, err := l.lockOne(ctx, id)
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, release)
	}
	return unlock, nil
}

func (l *keyLocks) lockOne(ctx context.Context, id string) (release func(), err error) {
	if err := l.lockInProcess(ctx, id); err != nil {
		return nil, err
	}
	if l.file == "" {
		return func() { l.unlockInProcess(id) }, nil
	}
	f, err := lockByte(ctx, l.file, id)
	if err != nil {
		l.unlockInProcess(id)
		return nil, err
	}
	return func() {
		f.Close()
		l.unlockInProcess(id)
	}, nil
}

// lockInProcess keeps out the other calls of this process.
func (l *keyLocks) lockInProcess(ctx context.Context, id string) error {
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

func (l *keyLocks) unlockInProcess(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.held[id])
	delete(l.held, id)
}

// lockRetryInterval is the pause between two tries: the kernel can wait for a lock, but
// not for a lock or the end of a context.
const lockRetryInterval = 5 * time.Millisecond

// lockByte locks the byte of file that stands for id until the result is closed.
// The lock is the open file's, not the process's as POSIX has it: fcntl(2), open
// file description locks. That two IDs have one byte is as unlikely as that two
// names have one ID, and would only make them wait for each other.
func lockByte(ctx context.Context, file, id string) (io.Closer, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", id, err)
	}
	sum := sha256.Sum256([]byte(id))
	at := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: int64(binary.BigEndian.Uint64(sum[:8]) >> 2), Len: 1}
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &at)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", id, err)
		}
		select {
		case <-time.After(lockRetryInterval):
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("%w on %s, in another process: %w", ErrPending, id, ctx.Err())
		}
	}
}
