package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/devcluster/internal/cluster"
)

func newDown() *cobra.Command {
	var name string
	command := &cobra.Command{
		Use:   "down",
		Short: "Stop a cluster, and remove what clusters that died have left",
		Long: `Stop a cluster, also one that is coming up, and return when nothing is left
of it. What other clusters that died have left is removed too.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := cluster.DirOf(name)
			if err != nil {
				return err
			}
			if err := dir.Stop(); err != nil {
				return err
			}
			return errors.Join(dir.ForgetLogs(), cluster.SweepDead())
		},
	}
	nameFlag(command, &name)
	return command
}
