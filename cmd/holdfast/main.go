// Command holdfast takes care of the state of Kubernetes workloads. Each role
// is a subcommand, and what the program is when it is called under that name.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/holdfast-io/holdfast/internal/app"
)

func main() {
	root := &cobra.Command{
		Use:           "holdfast",
		Short:         "The control plane for the state of Kubernetes workloads",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		newProvisioner(), newAttacher(), newResizer(), newSnapshotter(), newSnapshotController(), newRegistrar(),
		newCRDs(), newVersion())
	root.SetArgs(arguments(root, os.Args))
	if err := root.ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		fmt.Fprintln(os.Stderr, "holdfast:", err)
		os.Exit(1)
	}
}

// arguments puts the role that the program was called under, if it was, before
// the arguments, and brings flags into the form that cobra reads.
func arguments(root *cobra.Command, args []string) []string {
	called, rest := filepath.Base(args[0]), args[1:]
	for _, role := range root.Commands() {
		if role.Name() == called {
			return append([]string{called}, app.NormalizeDashes(role.Flags(), rest)...)
		}
	}
	if len(rest) > 0 {
		for _, role := range root.Commands() {
			if role.Name() == rest[0] {
				return append(rest[:1:1], app.NormalizeDashes(role.Flags(), rest[1:])...)
			}
		}
	}
	return rest
}
