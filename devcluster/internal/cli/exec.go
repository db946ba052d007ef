package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
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
			o.Progress = command.ErrOrStderr()
			return execIn(command.Context(), o, args)
		},
	}
	upFlags(command, &o)
	return command
}

func execIn(ctx context.Context, o cluster.Options, args []string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	dir, err := running(o.Name)
	if err == nil {
		return runCommand(ctx, dir, args)
	}
	if !errors.Is(err, cluster.ErrNotRunning) {
		return err
	}
	if err := cluster.SweepDead(); err != nil {
		return err
	}
	c, err := cluster.Up(ctx, o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case err := <-c.Failed():
			cancel(err)
		case <-ctx.Done():
		}
	}()
	err = runCommand(ctx, c.Dir(), args)
	if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return errors.Join(err, c.Down())
}

// runCommand runs the user's command to its end. When ctx ends first the
// command gets SIGTERM and, after a time of grace, SIGKILL.
func runCommand(ctx context.Context, dir cluster.Dir, args []string) error {
	// Set in this process too, so that the command itself is found there.
	for name, value := range map[string]string{
		"KUBECONFIG":      dir.Kubeconfig(),
		"DEVCLUSTER_NAME": dir.Name(),
		"PATH":            dir.Bin() + ":" + os.Getenv("PATH"),
	} {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %s: %w", args[0], err)
	}
	return nil
}
