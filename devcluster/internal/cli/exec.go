package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/devcluster/internal/cluster"
)

// grace is how long a command may go on after the cluster under it has failed
// or the user wants to stop.
const grace = 30 * time.Second

func newExec() *cobra.Command {
	var o cluster.Options
	command := &cobra.Command{
		Use:   "exec [flags] -- COMMAND [ARG...]",
		Short: "Run a command with KUBECONFIG and kubectl of a cluster",
		Long: `Run a command with KUBECONFIG set and kubectl in its PATH.

If no cluster of that name is up, one is started for the command and goes when
the command ends. The exit code is the command's.`,
		Example: "  devcluster exec --nodes 1 -- go test ./test/e2e/...",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			ctx, stop := untilSignal(command.Context())
			defer stop()
			o.Progress = command.ErrOrStderr()
			return execIn(ctx, o, args)
		},
	}
	upFlags(command, &o)
	return command
}

func execIn(ctx context.Context, o cluster.Options, args []string) error {
	dir, err := running(o.Name)
	if errors.Is(err, cluster.ErrNotRunning) {
		return execInNew(ctx, o, args)
	}
	if err != nil {
		return err
	}
	if have := len(dir.Nodes()); have < o.Nodes {
		return fmt.Errorf("cluster %s is up with %d nodes, not %d: end it by devcluster down --name %s, or give another --name",
			o.Name, have, o.Nodes, o.Name)
	}
	return runCommand(ctx, dir, args)
}

// execInNew runs the command in a cluster of its own. If that fails, so does
// the command, which is then told to stop.
func execInNew(ctx context.Context, o cluster.Options, args []string) error {
	sweepOthers(o.Progress)
	c, err := cluster.Up(ctx, o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		select {
		case err := <-c.Failed():
			failed <- err
			cancel()
		case <-ctx.Done():
		}
	}()
	err = runCommand(ctx, c.Dir(), args)
	cancel()
	if failure := <-failed; failure != nil {
		return errors.Join(err, c.Fail(failure))
	}
	return errors.Join(err, c.Down())
}

// runCommand runs the user's command to its end. When ctx ends first the
// command gets SIGTERM, unless the terminal has told it already, and after a
// time of grace SIGKILL.
func runCommand(ctx context.Context, dir cluster.Dir, args []string) error {
	if err := setEnvironment(dir); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.WaitDelay = grace
	cmd.Cancel = func() error {
		if fromTerminal(context.Cause(ctx)) {
			return nil
		}
		return cmd.Process.Signal(syscall.SIGTERM)
	}
	// The kernel sends the signal when the thread that started the command
	// ends; this one ends with the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Run(); err != nil {
		return &commandError{args[0], err}
	}
	return nil
}

// setEnvironment sets what the command finds, in this process too, so that the
// command itself is looked for there.
func setEnvironment(dir cluster.Dir) error {
	home, err := cluster.Home()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	for name, value := range map[string]string{
		"KUBECONFIG":         dir.Kubeconfig(),
		"DEVCLUSTER_NAME":    dir.Name(),
		"DEVCLUSTER":         self,
		cluster.HomeVariable: home, // It may have been relative, and the command may change its folder.
		"PATH":               dir.Bin() + ":" + os.Getenv("PATH"),
	} {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	return nil
}
