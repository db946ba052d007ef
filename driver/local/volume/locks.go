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

// keyLocks serializes calls per ID. A second call waits for the first one instead of
// failing: it is usually a repeated call, and returns the first one's result without a
// backoff. It waits until its context ends. Locks of different IDs never block each
// other, which a fixed set of hashed locks could not guarantee to a call that needs
// two.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
	// file is set if other processes must be excluded too. Each lock is then a byte of
	// this file. The kernel grants it to one open file at a time and releases it when
	// the process dies.
	file string
}

// lock locks all ids in sorted order, so that two calls cannot deadlock. If ctx has
// already ended it locks only what is free.
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

// lockInProcess excludes the other calls of this process.
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

// lockRetryInterval is the pause between two attempts: the kernel can wait for a lock,
// but not for a lock or the end of a context.
const lockRetryInterval = 5 * time.Millisecond

// lockByte locks the byte of file that stands for id until the result is closed. The
// lock belongs to the open file, not to the process as in POSIX (fcntl(2), open file
// description locks). Two IDs can share a byte as rarely as two names share an ID, and
// would then only wait for each other.
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
