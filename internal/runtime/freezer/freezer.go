package freezer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A State is what the freezer does to the processes of a control group.
type State string

// The states.
const (
	Thawed State = "Thawed"
	// Freezing means that some processes may still run.
	Freezing State = "Freezing"
	Frozen   State = "Frozen"
)

// A Cgroup is a control group that has a freezer.
type Cgroup struct {
	dir  string
	mode string
}

// At returns the control group of a directory. It is [ErrNotFound] if there is none.
func At(dir string) (*Cgroup, error) {
	if exists(filepath.Join(dir, "freezer.state")) {
		return open(dir, "v1")
	}
	return open(dir, "v2")
}

func open(dir, mode string) (*Cgroup, error) {
	c := &Cgroup{dir: dir, mode: mode}
	if !exists(filepath.Join(dir, c.control())) {
		// The root group has no freezer, and no container is in it.
		return nil, fmt.Errorf("%s has no %s: %w", dir, c.control(), ErrNotFound)
	}
	return c, nil
}

// Path is the directory of the control group.
func (c *Cgroup) Path() string { return c.dir }

// control is the file that freezes: freezer.state of version 1 has the state too.
func (c *Cgroup) control() string {
	if c.mode == "v1" {
		return "freezer.state"
	}
	return "cgroup.freeze"
}

// State returns what the freezer does. It is [ErrNotFound] if the control group is gone.
func (c *Cgroup) State() (State, error) {
	if c.mode == "v1" {
		return c.stateV1()
	}
	return c.stateV2()
}

func (c *Cgroup) stateV1() (State, error) {
	text, err := c.read("freezer.state")
	if err != nil {
		return "", err
	}
	switch text {
	case "THAWED":
		return Thawed, nil
	case "FREEZING":
		return Freezing, nil
	case "FROZEN":
		return Frozen, nil
	}
	return "", fmt.Errorf("freezer.state of %s is %q", c.dir, text)
}

func (c *Cgroup) stateV2() (State, error) {
	events, err := c.read("cgroup.events")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(events) {
		if strings.TrimSpace(line) == "frozen 1" {
			return Frozen, nil
		}
	}
	requested, err := c.read("cgroup.freeze")
	if err != nil {
		return "", err
	}
	if requested == "1" {
		return Freezing, nil
	}
	return Thawed, nil
}

// Freeze freezes all processes, and returns when none runs any more. If that does not
// succeed before ctx ends, it thaws them.
func (c *Cgroup) Freeze(ctx context.Context) error {
	request := "1"
	if c.mode == "v1" {
		request = "FROZEN"
	}
	err := c.reach(ctx, request, Frozen)
	if err == nil || errors.Is(err, ErrNotFound) {
		return err
	}
	if thawErr := c.Thaw(context.WithoutCancel(ctx)); thawErr != nil {
		return errors.Join(err, thawErr)
	}
	return err
}

// thawTimeout is for a context without a deadline: a process in an uninterruptible sleep
// thaws late.
const thawTimeout = 10 * time.Second

// Thaw lets all processes run, and returns when they do. It tries to even if ctx has ended.
// It is no error if they run already, or have ended.
func (c *Cgroup) Thaw(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), thawTimeout)
	defer cancel()
	request := "0"
	if c.mode == "v1" {
		request = "THAWED"
	}
	err := c.reach(ctx, request, Thawed)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w; if an ancestor of the control group is frozen, thaw that first", err)
	}
	return err
}

// reach writes the request until the state is as wanted. Version 1 needs the repetition: a
// process that is created meanwhile may keep a group in FREEZING until it is written again.
func (c *Cgroup) reach(ctx context.Context, request string, want State) error {
	for delay := 200 * time.Microsecond; ; delay = min(2*delay, 10*time.Millisecond) {
		if err := c.write(request); err != nil {
			return err
		}
		state, err := c.State()
		if err != nil || state == want {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to be %s, it is %s: %w", c.dir, want, state, context.Cause(ctx))
		case <-time.After(delay):
		}
	}
}

// Processes returns the IDs of the processes in the control group and those below it, as
// this process's PID namespace has them.
func (c *Cgroup) Processes() ([]int, error) {
	var pids []int
	err := filepath.WalkDir(c.dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			pids, err = appendProcesses(pids, path)
		}
		if path != c.dir && isGone(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, c.wrap("listing the processes", err)
	}
	return pids, nil
}

func appendProcesses(pids []int, dir string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return pids, err
	}
	for field := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return pids, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func (c *Cgroup) read(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		return "", c.wrap("reading "+name, err)
	}
	return strings.TrimSpace(string(text)), nil
}

func (c *Cgroup) write(text string) error {
	// Without O_CREATE: a control group that is gone is not made again.
	file, err := os.OpenFile(filepath.Join(c.dir, c.control()), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return c.wrap("writing "+c.control(), err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		return c.wrap("writing "+c.control(), err)
	}
	return nil
}

func (c *Cgroup) wrap(doing string, err error) error {
	if isGone(err) {
		return fmt.Errorf("%s of %s: %w", doing, c.dir, ErrNotFound)
	}
	return fmt.Errorf("%s of %s: %w", doing, c.dir, err)
}

// isGone is whether the control group was removed before or while its file was open.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}
