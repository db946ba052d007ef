package volume

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/driver/local/disk"
)

// errTooLong is a group that was not copied in the time for which workloads can be
// kept from writing.
var errTooLong = errors.New("its volumes could not be held still for long enough")

// copyTogether copies the images of all volumes while none of them changes, which
// is the moment that it sets g.Created to. It tells which copies share blocks.
func (s *Store) copyTogether(g *Group, volumes []Volume) (shared []bool, err error) {
	h := newHeld(s.longest)
	// Whatever happens, a panic too, writers go on.
	defer func() { err = errors.Join(err, h.release()) }()
	for _, v := range volumes {
		if err := h.add(s.quiesce(s.volumes.image(v.ID))); err != nil {
			return nil, err
		}
	}
	if err := oneMoment(volumes, h.holds); err != nil {
		return nil, err
	}
	g.Created = s.now().UTC()
	shared = make([]bool, len(volumes))
	for i, v := range volumes {
		if err := h.lost(); err != nil {
			return nil, err
		}
		shared[i], err = s.copyHeld(s.snapshots.image(memberID(g.ID, v.ID)), s.volumes.image(v.ID), h.holds[i])
		if err != nil {
			return nil, err
		}
	}
	return shared, nil
}

// oneMoment tells whether copies that are made one after another can be of one
// moment. Of what is held still they are of any moment; one that is not, such as a
// raw device that a workload has, can only be copied in an instant, and that one
// is the moment of all. Two have two.
func oneMoment(volumes []Volume, holds []disk.Hold) error {
	var moving []string
	for i, h := range holds {
		if !h.Still {
			moving = append(moving, volumes[i].ID)
		}
	}
	if len(moving) < 2 {
		return nil
	}
	return fmt.Errorf("%w: volumes %s are written to by workloads that this driver cannot hold still, so they have no moment in common; stop the workloads of all of them but one, or take single snapshots",
		ErrInUse, strings.Join(moving, " and "))
}

// held is several images that are held still together, for a bounded time: when it
// is up writers go on, whatever the one who holds them is doing.
type held struct {
	holds []disk.Hold // only the holder uses it

	mu      sync.Mutex
	pending []func() error
	ended   bool
	timer   *time.Timer
	late    error
}

func newHeld(longest time.Duration) *held {
	h := &held{}
	h.timer = time.AfterFunc(longest, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.ended {
			h.late = fmt.Errorf("%w: %w; %s were up before all were copied. Stop the workloads, or keep the data directory on XFS or Btrfs, where a copy takes an instant", ErrInUse, errTooLong, longest)
			h.late = errors.Join(h.late, h.end())
		}
	})
	return h
}

// add takes one more hold. It is released at once if the time is up.
func (h *held) add(one disk.Hold, err error) error {
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return errors.Join(one.Release(), h.late)
	}
	h.holds, h.pending = append(h.holds, one), append(h.pending, one.Release)
	return nil
}

// lost tells whether the time was up already: what is copied then is worth nothing.
func (h *held) lost() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.late
}

// release lets writers go on. It fails if they did before.
func (h *held) release() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer.Stop()
	if h.ended {
		return h.late
	}
	return h.end()
}

// end releases all, also after one that fails. The caller holds the lock.
func (h *held) end() error {
	h.ended = true
	var errs []error
	for _, release := range h.pending {
		errs = append(errs, release())
	}
	return errors.Join(errs...)
}
