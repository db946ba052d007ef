package cluster

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Stop ends a cluster that another process runs, or is starting, and returns
// when no process of it is left. It is no error if there is none.
func (d Dir) Stop() error {
	told := 0
	return d.drain(func(owner int) error {
		if owner == told {
			return nil
		}
		told = owner
		if err := unix.Kill(owner, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stopping process %d, which runs cluster %s: %w", owner, d.Name(), err)
		}
		return nil
	})
}
