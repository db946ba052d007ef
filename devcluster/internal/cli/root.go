// Package cli is the command line of devcluster: one file per command.
package cli

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/devcluster/internal/cluster"
)

// New returns the whole command line.
func New() *cobra.Command {
	root := &cobra.Command{
		Use:   "devcluster",
		Short: "A real Kubernetes in one program, for development and tests",
		Long: `A real Kubernetes in one program, for development and tests.

Clusters live as long as the process that started them. Everything they make
lies below $DEVCLUSTER_HOME (default: holdfast/devcluster in the cache folder).
Called as kubectl, or with kubectl as its first argument, it is kubectl.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newUp(), newDown(), newExec(), newKubeconfig(), newLoad(), newShell())
	return root
}

// A commandError is what came of the command that the user wanted to run.
type commandError struct {
	name string
	err  error
}

func (e *commandError) Error() string { return fmt.Sprintf("running %s: %v", e.name, e.err) }

// ExitCode is the code with which the program ends on an error: that of the
// command that it ran for the user, as a shell would tell it, else 1.
func ExitCode(err error) int {
	var (
		command *commandError
		exit    *exec.ExitError
	)
	if !errors.As(err, &command) || !errors.As(command.err, &exit) {
		return 1
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}

// sweepOthers removes what dead clusters have left. Where that fails the
// machine is not clean, but a new cluster can still start.
func sweepOthers(progress io.Writer) {
	if err := cluster.SweepDead(); err != nil {
		fmt.Fprintln(progress, "devcluster: dead clusters have left something:", err)
	}
}

// nameFlag declares the flag that all commands share.
func nameFlag(command *cobra.Command, name *string) {
	command.Flags().StringVar(name, "name", "dev", "name of the cluster")
}

// upFlags declares the flags that say what a new cluster shall be.
func upFlags(command *cobra.Command, o *cluster.Options) {
	nameFlag(command, &o.Name)
	command.Flags().IntVar(&o.Nodes, "nodes", 0, "number of real nodes to start (needs root)")
	command.Flags().BoolVar(&o.APIOnly, "api-only", false, "only the API server with its store: no controllers, no scheduler, no nodes")
	command.Flags().StringArrayVar(&o.APIServerArgs, "api-server-arg", nil, "further flag for the API server, may be given several times")
}
