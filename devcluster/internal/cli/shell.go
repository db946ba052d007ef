package cli

import (
	"fmt"
	"os"
	"os/exec"

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
			cmd, err := node.Command(dir.Node(args[0]), args[1:]...)
			if err != nil {
				return fmt.Errorf("node %s: %w", args[0], err)
			}
			return attached(cmd)
		},
	}
	nameFlag(command, &name)
	return command
}

// attached runs a command on this terminal.
func attached(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %s: %w", cmd.Args[0], err)
	}
	return nil
}
