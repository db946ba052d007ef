package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/devcluster/internal/cluster"
)

func newKubeconfig() *cobra.Command {
	var name string
	command := &cobra.Command{
		Use:     "kubeconfig",
		Short:   "Print the path of a running cluster's kubeconfig",
		Example: "  KUBECONFIG=$(devcluster kubeconfig) kubectl get nodes",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			dir, err := running(name)
			if err != nil {
				return err
			}
			fmt.Fprintln(command.OutOrStdout(), dir.Kubeconfig())
			return nil
		},
	}
	nameFlag(command, &name)
	return command
}

// running returns the folder of a cluster that is up.
func running(name string) (cluster.Dir, error) {
	dir, err := cluster.DirOf(name)
	if err != nil {
		return "", err
	}
	return dir, dir.Ready()
}
