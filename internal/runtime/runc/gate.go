package runc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	gateReady = "gate-ready"
	gateOpen  = "gate-open"
	// gateScript is an action script of CRIU. The directory of the container is appended.
	gateScript = "gate.sh"
	// gateTime limits how long runc and CRIU take to start.
	gateTime = time.Minute
)

// gateText makes CRIU wait before it does anything: it says so in one pipe and waits for
// a line in the other.
const gateText = `#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = pre-dump ] || exit 0
echo > %[1]s/` + gateReady + `
read -r line < %[1]s/` + gateOpen + `
`

// A gate holds CRIU back until the container is frozen: starting runc and CRIU takes longer
// than many dumps.
type gate struct {
	ready, open *os.File
}

// canRunScript reports whether CRIU can run a shell script of a directory.
func canRunScript(dir string) bool {
	_, err := os.Stat("/bin/sh")
	var stat unix.Statfs_t
	return err == nil && unix.Statfs(dir, &stat) == nil && stat.Flags&unix.ST_NOEXEC == 0
}

// newGate makes a gate in the directory of a container.
func newGate(dir string) (*gate, error) {
	g := &gate{}
	for name, file := range map[string]**os.File{gateReady: &g.ready, gateOpen: &g.open} {
		path := filepath.Join(dir, name)
		if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("making a pipe to CRIU: %w", err)
		}
		// Both ends are open here, so that nobody waits for this process to open the other one.
		var err error
		if *file, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			return nil, fmt.Errorf("opening a pipe to CRIU: %w", err)
		}
	}
	err := os.WriteFile(filepath.Join(dir, gateScript), fmt.Appendf(nil, gateText, dir), 0o700)
	if err != nil {
		return nil, fmt.Errorf("writing an action script for CRIU: %w", err)
	}
	return g, nil
}

// wait returns when CRIU is at the gate, or has ended: then it is nothing to wait for.
func (g *gate) wait(ctx context.Context, ended <-chan struct{}) error {
	ready := make(chan error, 1)
	go func() {
		_, err := g.ready.Read(make([]byte, 1))
		ready <- err
	}()
	select {
	case err := <-ready:
		if err != nil {
			return fmt.Errorf("waiting for CRIU to start: %w", err)
		}
		return nil
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for CRIU to start: %w", context.Cause(ctx))
	case <-time.After(gateTime):
		return fmt.Errorf("waiting for CRIU to start: it has not within %s", gateTime)
	}
}

// release lets CRIU begin.
func (g *gate) release() error {
	if _, err := g.open.WriteString("\n"); err != nil {
		return fmt.Errorf("telling CRIU to begin: %w", err)
	}
	return nil
}

// remove removes the gate.
func (g *gate) remove() error {
	dir := filepath.Dir(g.ready.Name())
	failed := []error{g.ready.Close(), g.open.Close()}
	for _, name := range []string{gateReady, gateOpen, gateScript} {
		failed = append(failed, os.Remove(filepath.Join(dir, name)))
	}
	return errors.Join(failed...)
}
