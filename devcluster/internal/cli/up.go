package cli

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/devcluster/internal/cluster"
)

func newUp() *cobra.Command {
	var o cluster.Options
	command := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster and keep it until Ctrl-C",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(command.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			o.Progress = command.ErrOrStderr()
			return up(ctx, command, o)
		},
	}
	upFlags(command, &o)
	return command
}

// up runs a cluster until ctx ends, which is no error, or the cluster fails.
func up(ctx context.Context, command *cobra.Command, o cluster.Options) error {
	if err := cluster.SweepDead(); err != nil {
		return err
	}
	c, err := cluster.Up(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(command.OutOrStdout(), "export KUBECONFIG=%s\n", c.Dir().Kubeconfig())
	select {
	case <-ctx.Done():
		return c.Down()
	case err := <-c.Failed():
		return errors.Join(err, c.Down())
	}
}
