package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// Recover implements [runtime.Engine]. The kubelet cancels a call whose client has died, so
// there is nothing to wait for but the runtime, which may still end what it does.
func (e *Engine) Recover(ctx context.Context) (map[string][]runtime.Dump, error) {
	records, err := e.journal.records()
	if err != nil {
		return nil, err
	}
	found := map[string][]runtime.Dump{}
	var mu sync.Mutex
	// All at once: each may have to wait for its container.
	group, ctx := errgroup.WithContext(ctx)
	for _, r := range records {
		if e.isActive(r.ID) {
			continue
		}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			complete, err := e.recover(r)
			if err != nil {
				return fmt.Errorf("recovering checkpoint %s: %w", r.ID, err)
			}
			if complete {
				mu.Lock()
				defer mu.Unlock()
				found[r.ID] = []runtime.Dump{&dump{engine: e, record: r}}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return found, nil
}

func (e *Engine) isActive(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.active[id]
}

// recover ends a checkpoint that another process has begun, and returns whether it is
// complete. Otherwise nothing is left of it.
func (e *Engine) recover(r *record) (complete bool, err error) {
	if r.Complete {
		complete = !r.Consumed && exists(e.path(r.Archive))
	} else if complete, err = e.finish(r); err != nil {
		return false, err
	}
	if complete {
		return true, nil
	}
	if err := e.removeArchive(r); err != nil {
		return false, err
	}
	return false, e.journal.remove(r.ID)
}

// finish ends a call that nobody waits for, and returns whether its archive is complete.
func (e *Engine) finish(r *record) (complete bool, err error) {
	group, err := e.group(r.Report.Container.ID)
	if err != nil {
		return false, err
	}
	forced, err := e.settle(r, group, result{sent: true})
	if err != nil {
		return false, err
	}
	if forced {
		return false, nil // the archive would have files from after the thaw
	}
	if r.Archive, err = e.findArchive(r); err != nil || r.Archive == "" {
		return false, err
	}
	info, err := os.Lstat(e.path(r.Archive))
	if err != nil {
		return false, err
	}
	r.Report.FrozenAt = r.Called
	r.Report.Frozen = max(time.Millisecond, info.ModTime().Sub(r.Called))
	var rejected *runtime.Error
	if err := e.complete(r); errors.As(err, &rejected) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return true, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
