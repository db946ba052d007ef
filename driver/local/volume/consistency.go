package volume

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/driver/local/disk"
)

// errFreezeTimeout reports a group that could not be copied within Options.MaxFreeze.
var errFreezeTimeout = errors.New("its volumes could not stay frozen for long enough")

// copyConsistently copies the images of all volumes while none of them changes, and
// sets g.Created to that point in time. It reports which copies are reflinks.
func (s *Store) copyConsistently(g *Group, volumes []Volume) (shared []bool, err error) {
	h := newFreezeSet(s.maxFreeze)
	// Writers continue in any case, even after a panic.
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

// checkConsistent returns an error if successive copies cannot have one point in time.
// A copy of a quiesced image has any point in time during the freeze. An image that is
// not quiesced, such as a raw device in use, can only be reflinked, and the time of
// that reflink is the time of the group. Two such images have different times.
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
	return fmt.Errorf("%w: volumes %s are written to by workloads that this driver cannot freeze, so their copies have no point in time in common; stop the workloads of all of them but one, or take single snapshots",
		ErrInUse, strings.Join(moving, " and "))
}

// freezeSet is a set of images that are frozen together for a limited time. When the
// time is up it thaws them, whatever the caller is doing.
type freezeSet struct {
	freezes []disk.Freeze // used only by the caller of add

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

// add adds a frozen image, and thaws it at once if the time is up.
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

// err returns an error if the time is up. Copies that were made since are not usable.
func (h *freezeSet) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.timeoutErr
}

// thaw thaws all images. It fails if they were already thawed.
func (h *freezeSet) thaw() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer.Stop()
	if h.thawed {
		return h.timeoutErr
	}
	return h.thawAllLocked()
}

// thawAllLocked thaws all images, even if one of them fails. The caller has the lock.
func (h *freezeSet) thawAllLocked() error {
	h.thawed = true
	var errs []error
	for _, release := range h.thaws {
		errs = append(errs, release())
	}
	return errors.Join(errs...)
}
