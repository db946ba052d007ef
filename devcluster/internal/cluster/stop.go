package cluster

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Stop ends a cluster that another process runs and returns when nothing of it
// is left. It is no error if the cluster is not running.
func (d Dir) Stop() error {
	text, err := os.ReadFile(d.owner())
	if errors.Is(err, os.ErrNotExist) || !d.Running() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding who runs cluster %s: %w", d.Name(), err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("reading %s: %w", d.owner(), err)
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stopping process %d, which runs cluster %s: %w", pid, d.Name(), err)
	}
	for end := time.Now().Add(patience); d.Running(); time.Sleep(pulse) {
		if time.Now().After(end) {
			return fmt.Errorf("cluster %s has not stopped after %s; see process %d", d.Name(), patience, pid)
		}
	}
	return nil
}

// owner holds the number of the process that runs the cluster.
func (d Dir) owner() string { return d.at("owner") }

func (d Dir) writeOwner() error {
	if err := os.WriteFile(d.owner(), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return fmt.Errorf("writing who runs cluster %s: %w", d.Name(), err)
	}
	return nil
}
