package runc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A freezer is the control group of a container, which stops and continues all of its
// processes at once: with the freezer controller of cgroup v1, or with cgroup v2.
type freezer struct {
	Dir string
	V2  bool
}

// freezePoll is how often a freezer is read while it changes.
const freezePoll = time.Millisecond

// freeze returns when all processes have stopped. If ctx ends first it thaws them.
func (f freezer) freeze(ctx context.Context) error {
	for {
		// Version 1 can get stuck in FREEZING if processes fork meanwhile; writing again helps.
		if err := f.write(true); err != nil {
			return err
		}
		frozen, err := f.isFrozen()
		if err != nil || frozen {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("freezing the container: %w", context.Cause(ctx)), f.thaw())
		case <-time.After(freezePoll):
		}
	}
}

// thaw lets all processes continue. A container that is gone is no error.
func (f freezer) thaw() error {
	if err := f.write(false); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// isFrozen reports whether all processes have stopped.
func (f freezer) isFrozen() (bool, error) {
	if !f.V2 {
		state, err := f.read("freezer.state")
		return state == "FROZEN", err
	}
	events, err := f.read("cgroup.events")
	for line := range strings.Lines(events) {
		if strings.TrimSpace(line) == "frozen 1" {
			return true, err
		}
	}
	return false, err
}

// isRequested reports whether somebody has frozen, or is freezing, this container or a
// group that it is in.
func (f freezer) isRequested() (bool, error) {
	if !f.V2 {
		state, err := f.read("freezer.state")
		return state != "THAWED", err
	}
	frozen, err := f.isFrozen()
	if err != nil || frozen {
		return frozen, err
	}
	requested, err := f.read("cgroup.freeze")
	return requested == "1", err
}

func (f freezer) write(frozen bool) error {
	name, value := "freezer.state", "THAWED"
	switch {
	case f.V2 && frozen:
		name, value = "cgroup.freeze", "1"
	case f.V2:
		name, value = "cgroup.freeze", "0"
	case frozen:
		value = "FROZEN"
	}
	// Never created: a container's control group that is gone must not come back.
	file, err := os.OpenFile(filepath.Join(f.Dir, name), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("opening the freezer: %w", err)
	}
	defer file.Close()
	if _, err := file.WriteString(value); err != nil {
		return fmt.Errorf("writing %s to the freezer: %w", value, err)
	}
	return nil
}

func (f freezer) read(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(f.Dir, name))
	if err != nil {
		return "", fmt.Errorf("reading the freezer: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
