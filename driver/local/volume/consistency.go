package volume

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/driver/local/disk"
)

// errFreezeTimeout is a group that was not copied in the time for which workloads can be
// kept from writing.
var errFreezeTimeout = errors.New("its volumes could not be held still for long enough")

// copyConsistently copies the images of all volumes while none of them changes, which
// is the moment that it sets g.Created to. It tells which copies share blocks.
func (s *Store) copyConsistently(g *Group, volumes []Volume) (shared []bool, err error) {
	h := newFreezeSet(s.maxFreeze)
	// Whatever happens, a panic too, writers go on.
	defer func() { err = errors.Join(err, h.thaw()) }()
	for _, v := range volumes {
		if err := h.add(s.quiesce(s.volumes.image(v.ID))); err != nil {
			return nil, err
		}
	}
	if err := checkConsistent(volumes, h.freezes); err != nil {
		return nil, err
	}
	g.Created = s.now().UTC()
	shared = make([]bool, len(volumes))
	for i, v := range volumes {
		if err := h.err(); err != nil {
			return nil, err
		}
		shared[i], err = s.copyFrozen(s.snapshots.image(memberID(g.ID, v.ID)), s.volumes.image(v.ID), h.freezes[i])
		if err != nil {
			return nil, err
		}
	}
	return shared, nil
}

// checkConsistent tells whether copies that are made one after another can be of one
// moment. Of what is held still they are of any moment; one that is not, such as a
// raw device that a workload has, can only be copied in an instant, and that one
// is the moment of all. Two have two.
func checkConsistent(volumes []Volume, freezes []disk.Freeze) error {
	var moving []string
	for i, h := range freezes {
		if !h.Quiesced {
			moving = append(moving, volumes[i].ID)
		}
	}
	if len(moving) < 2 {
		return nil
	}
	return fmt.Errorf("%w: volumes %s are written to by workloads that this driver cannot hold still, so they have no moment in common; stop the workloads of all of them but one, or take single snapshots",
		ErrInUse, strings.Join(moving, " and "))
}

// freezeSet is several images that are held still together, for a bounded time: when it
// is up writers go on, whatever the one who holds them is doing.
type freezeSet struct {
	freezes []disk.Freeze // only the holder uses it

	mu         sync.Mutex
	thaws      []func() error
	thawed     bool
	timer      *time.Timer
	timeoutErr error
}

func newFreezeSet(limit time.Duration) *freezeSet {
	h := &freezeSet{}
	h.timer = time.AfterFunc(limit, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.thawed {
			h.timeoutErr = fmt.Errorf("%w: %w; %s were up before all were copied. Stop the workloads, or keep the data directory on XFS or Btrfs, where a copy takes an instant", ErrInUse, errFreezeTimeout, limit)
			h.timeoutErr = errors.Join(h.timeoutErr, h.thawAllLocked())
		}
	})
	return h
}

// add takes one more hold. It is released at once if the time is up.
func (h *freezeSet) add(one disk.Freeze, err error) error {
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.thawed {
		return errors.Join(one.Thaw(), h.timeoutErr)
	}
	h.freezes, h.thaws = append(h.freezes, one), append(h.thaws, one.Thaw)
	return nil
}

// err tells whether the time was up already: what is copied then is worth nothing.
func (h *freezeSet) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.timeoutErr
}

// thaw lets writers go on. It fails if they did before.
func (h *freezeSet) thaw() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer.Stop()
	if h.thawed {
		return h.timeoutErr
	}
	return h.thawAllLocked()
}

// thawAllLocked releases all, also after one that fails. The caller holds the lock.
func (h *freezeSet) thawAllLocked() error {
	h.thawed = true
	var errs []error
	for _, release := range h.thaws {
		errs = append(errs, release())
	}
	return errors.Join(errs...)
}
