package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/devcluster/internal/cluster"
)

func newUp() *cobra.Command {
	var (
		o        cluster.Options
		untilEOF bool
	)
	command := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster and keep it until Ctrl-C",
		Long: `Start a cluster and keep it until Ctrl-C, SIGTERM or SIGHUP.

When it is ready, one line that sets KUBECONFIG is printed on standard output.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, stop := untilSignal(command.Context())
			defer stop()
			if untilEOF {
				ctx = untilEnd(ctx, command.InOrStdin())
			}
			o.Progress = command.ErrOrStderr()
			return up(ctx, command, o)
		},
	}
	upFlags(command, &o)
	command.Flags().BoolVar(&untilEOF, "until-eof", false,
		"stop also when standard input ends: given a pipe, the cluster goes with the process that started it")
	return command
}

// up runs a cluster until ctx ends, which is no error, or the cluster fails.
func up(ctx context.Context, command *cobra.Command, o cluster.Options) error {
	sweepOthers(o.Progress)
	c, err := cluster.Up(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(command.OutOrStdout(), "export KUBECONFIG=%s\n", c.Dir().Kubeconfig())
	fmt.Fprintf(o.Progress, "devcluster: cluster %s is up; Ctrl-C here, or \"devcluster down --name %s\", ends it\n", o.Name, o.Name)
	select {
	case <-ctx.Done():
		fmt.Fprintf(o.Progress, "devcluster: ending cluster %s: %v\n", o.Name, context.Cause(ctx))
		return c.Down()
	case err := <-c.Failed():
		return c.Fail(err)
	}
}
