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

	"github.com/holdfast-io/holdfast/internal/runtime"
)

const (
	// criuConfig is a configuration file for CRIU, which it reads before the node's own
	// /etc/criu/runc.conf.
	criuConfig = "criu.conf"
	// criuLog is CRIU's log of a dump.
	criuLog = "dump.log"
	// nodeCRIUConfig is the node's own; it wins.
	nodeCRIUConfig = "/etc/criu/runc.conf"
	// markVariable marks the processes of a checkpoint in their environment: runc and CRIU
	// outlive a worker that is killed.
	markVariable = "HOLDFAST_CHECKPOINT"
	// ghostLimit is how large a deleted file may be that is dumped, in bytes.
	ghostLimit = 64 << 20
)

// A criuRun is runc with CRIU, which dump a container.
type criuRun struct {
	target *target
	cmd    *exec.Cmd
	said   bytes.Buffer
	gate   *gate    // nil if CRIU starts only when the container is frozen
	ready  *os.File // of a lazy dump: CRIU writes a byte when everything but memory is dumped
	ended  chan struct{}
	err    error // why it has failed, after ended is closed
}

// writeCRIUConfig writes the configuration of CRIU for a container.
func (c *checkpoint) writeCRIUConfig(t *target, gated bool) error {
	// By itself CRIU gives up when it has not seized the processes after 10 s, as on a node
	// that is very busy. The limit of the checkpoint is the one that counts.
	limit := max(10, int(c.request.Options.Timeout.Seconds())+1)
	lines := []string{fmt.Sprint("ghost-limit ", ghostLimit), fmt.Sprint("timeout ", limit)}
	if gated {
		lines = append(lines, "action-script "+filepath.Join(t.dir, gateScript))
	}
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
	return writeSynced(filepath.Join(t.dir, criuConfig), []byte(strings.Join(lines, "\n")+"\n"))
}

// newRun prepares the dump of a container. If the node has a shell it is started at once
// and waits at a gate.
func (c *checkpoint) newRun(ctx context.Context, t *target) (*criuRun, error) {
	r := &criuRun{target: t, ended: make(chan struct{})}
	gated := canRunScript(t.dir)
	if err := c.writeCRIUConfig(t, gated); err != nil {
		return nil, err
	}
	args := []string{"--root", t.root, "checkpoint", "--leave-running", "--file-locks", "--image-path", t.images, "--work-path", t.dir}
	if c.step == runtime.FreezeCopy {
		args = append(args, "--lazy-pages", "--page-server", "127.0.0.1:"+lazyPort, "--status-fd", "3")
	}
	r.cmd = exec.CommandContext(ctx, t.binary, append(args, t.ID)...)
	r.cmd.Env = append(os.Environ(), markVariable+"="+c.dir, "CRIU_CONFIG_FILE="+filepath.Join(t.dir, criuConfig))
	r.cmd.Stdout, r.cmd.Stderr = &r.said, &r.said
	r.cmd.Cancel = func() error { return killMarked(c.dir) }
	r.cmd.WaitDelay = time.Second
	if !gated {
		return r, nil
	}
	var err error
	if r.gate, err = newGate(t.dir); err != nil {
		return nil, err
	}
	if err := c.start(ctx, r); err != nil {
		return nil, errors.Join(err, r.gate.remove())
	}
	return r, r.gate.wait(ctx, r.ended)
}

// start starts runc. When ctx ends, runc and CRIU are killed.
func (c *checkpoint) start(ctx context.Context, r *criuRun) error {
	if c.step == runtime.FreezeCopy {
		ready, status, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("making a pipe for the status of CRIU: %w", err)
		}
		defer status.Close()
		r.ready, r.cmd.ExtraFiles = ready, []*os.File{status}
	}
	if err := c.isolated.run(r.cmd.Start); err != nil {
		close(r.ended)
		if errors.Is(err, exec.ErrNotFound) {
			return explainCRIU(err.Error(), "")
		}
		return fmt.Errorf("starting runc: %w", err)
	}
	go func() {
		r.err = r.explain(ctx, r.cmd.Wait())
		close(r.ended)
	}()
	return nil
}

// begin lets CRIU dump the container, which is frozen.
func (c *checkpoint) begin(ctx context.Context, r *criuRun) error {
	if r.gate == nil {
		return c.start(ctx, r)
	}
	return r.gate.release()
}

// wait returns why the dump has failed, if it has, when runc has ended.
func (r *criuRun) wait() error {
	<-r.ended
	return r.err
}

// close removes what was needed to run it, when it has ended.
func (r *criuRun) close() error {
	var failed []error
	if r.cmd.Process != nil {
		<-r.ended
	}
	if r.ready != nil {
		failed = append(failed, r.ready.Close())
	}
	if r.gate != nil {
		failed = append(failed, r.gate.remove())
	}
	return errors.Join(append(failed, os.Remove(filepath.Join(r.target.dir, criuConfig)))...)
}

// explain says why runc has failed, if it has.
func (r *criuRun) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	log, logErr := os.ReadFile(filepath.Join(r.target.dir, criuLog))
	if logErr != nil && !errors.Is(logErr, os.ErrNotExist) {
		return errors.Join(err, logErr)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("dumping container %s: %w; %s", r.target.Name, context.Cause(ctx), progressOf(string(log)))
	}
	return explainCRIU(fmt.Sprintf("%s (%v)", strings.TrimSpace(r.said.String()), err), string(log))
}

// markedProcesses returns the processes of runc and CRIU that work on a checkpoint: their
// environment says so or, because CRIU writes a title over its environment, their working
// directory is in the checkpoint's.
func markedProcesses(dir string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("finding the directory of a checkpoint: %w", err)
	}
	var pids []int
	for _, entry := range entries {
		var pid int
		if _, err := fmt.Sscan(entry.Name(), &pid); err != nil {
			continue
		}
		if hasMark(pid, dir) || worksIn(pid, resolved) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// hasMark reports whether the environment of a process names the checkpoint.
func hasMark(pid int, dir string) bool {
	environment, err := os.ReadFile(procFile(pid, "environ"))
	mark := []byte("\x00" + markVariable + "=" + dir + "\x00")
	return err == nil && bytes.Contains(bytes.Join([][]byte{{}, environment}, []byte{0}), mark)
}

// worksIn reports whether the working directory of a process is in a directory: CRIU's is
// that of its log.
func worksIn(pid int, dir string) bool {
	at, err := os.Readlink(procFile(pid, "cwd"))
	return err == nil && (at == dir || strings.HasPrefix(at, dir+"/"))
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
