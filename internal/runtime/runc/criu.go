package runc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// criuConfig is a configuration file for CRIU, which it reads before the node's own
	// /etc/criu/runc.conf.
	criuConfig = "criu.conf"
	// nodeCRIUConfig is the node's own; it wins.
	nodeCRIUConfig = "/etc/criu/runc.conf"
	// markVariable marks the processes of a checkpoint in their environment: runc and CRIU
	// outlive a worker that is killed.
	markVariable = "HOLDFAST_CHECKPOINT"
	// ghostLimit is how large a deleted file may be that is dumped, in bytes.
	ghostLimit = 64 << 20
)

// writeCRIUConfig writes the configuration of CRIU for this checkpoint.
func (c *checkpoint) writeCRIUConfig() error {
	lines := []string{fmt.Sprint("ghost-limit ", ghostLimit)}
	if c.request.Options.CloseTCP {
		lines = append(lines, "tcp-close")
	}
	node, err := os.ReadFile(nodeCRIUConfig)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading the node's configuration of CRIU: %w", err)
	}
	if !strings.Contains(string(node), "tcp-established") {
		// Only connections that are to be restored need protection from packets. Without it
		// CRIU does not run iptables while the container is frozen.
		lines = append(lines, "network-lock skip")
	}
	return writeSynced(filepath.Join(c.dir, criuConfig), []byte(strings.Join(lines, "\n")+"\n"))
}

// runCRIU has runc and CRIU dump a frozen container, which is frozen afterwards, too.
func (c *checkpoint) runCRIU(ctx context.Context, t *target) error {
	cmd := c.runcCommand(ctx, t)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("dumping container %s: %w", t.Name, context.Cause(ctx))
	}
	if errors.Is(err, exec.ErrNotFound) {
		return explainCRIU(err.Error(), "")
	}
	log, logErr := os.ReadFile(filepath.Join(t.dir, "dump.log"))
	if logErr != nil && !errors.Is(logErr, os.ErrNotExist) {
		return errors.Join(err, logErr)
	}
	return explainCRIU(fmt.Sprintf("%s (%v)", strings.TrimSpace(said.String()), err), string(log))
}

// runcCommand is runc, to dump a container into its directory. When ctx ends, runc and
// CRIU are killed.
func (c *checkpoint) runcCommand(ctx context.Context, t *target) *exec.Cmd {
	cmd := exec.CommandContext(ctx, t.binary, "--root", t.root, "checkpoint", "--leave-running", "--file-locks",
		"--image-path", t.images, "--work-path", t.dir, t.ID)
	cmd.Env = append(os.Environ(), markVariable+"="+c.dir, "CRIU_CONFIG_FILE="+filepath.Join(c.dir, criuConfig))
	cmd.Cancel = func() error { return killMarked(c.dir) }
	cmd.WaitDelay = time.Second
	return cmd
}

// markedProcesses returns the processes of runc and CRIU that work on a checkpoint.
func markedProcesses(dir string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	mark := []byte("\x00" + markVariable + "=" + dir + "\x00")
	var pids []int
	for _, entry := range entries {
		var pid int
		if _, err := fmt.Sscan(entry.Name(), &pid); err != nil {
			continue
		}
		environment, err := os.ReadFile(procFile(pid, "environ"))
		if err != nil {
			continue // It ended.
		}
		if bytes.Contains(bytes.Join([][]byte{{}, environment}, []byte{0}), mark) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// killMarked kills runc and CRIU. CRIU's part inside the container's processes notices
// that CRIU is gone and lets them continue where they were.
func killMarked(dir string) error {
	pids, err := markedProcesses(dir)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("killing process %d of the checkpoint: %w", pid, err)
		}
	}
	return nil
}
