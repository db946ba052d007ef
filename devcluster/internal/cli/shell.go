package cli

import (
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/devcluster/internal/node"
)

func newShell() *cobra.Command {
	var name string
	command := &cobra.Command{
		Use:     "shell NODE [-- COMMAND [ARG...]]",
		Short:   "Run a shell, or a command, as root inside a node",
		Example: "  devcluster shell dev-n1 -- ctr --namespace k8s.io containers ls",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := running(name)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				args = append(args, "/bin/bash")
			}
			if !slices.Contains(dir.Nodes(), dir.Node(args[0])) {
				return fmt.Errorf("cluster %s has no node %s; it has %d, named %s-n1 and so on", name, args[0], len(dir.Nodes()), name)
			}
			cmd, err := node.Command(dir.Node(args[0]), args[1:]...)
			if err != nil {
				return err
			}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
			if err := cmd.Run(); err != nil {
				return &commandError{args[1], err}
			}
			return nil
		},
	}
	nameFlag(command, &name)
	return command
}
