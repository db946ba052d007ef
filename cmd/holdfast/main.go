// Command holdfast manages volumes, snapshots and checkpoints of Kubernetes clusters. Each
// role is a subcommand. The program also takes its role from the name under which it is called.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/holdfast-io/holdfast/internal/app"
	"github.com/holdfast-io/holdfast/internal/checkpoint/volume"
)

func main() {
	root := &cobra.Command{
		Use:           "holdfast",
		Short:         "Controllers for Kubernetes volumes, snapshots and checkpoints",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		newProvisioner(), newAttacher(), newResizer(), newSnapshotter(), newSnapshotController(), newRegistrar(), newLivenessProbe(),
		newCheckpointOperator(), newNodeAgent(), newCheckpointWorker(), newHold(),
		newArchive(), newCRDs(), newVersion())
	root.SetArgs(arguments(root, os.Args))
	if err := root.ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		fmt.Fprintln(os.Stderr, "holdfast:", err)
		os.Exit(exitCode(err))
	}
}

// arguments returns the arguments for cobra. If the program was called under the name of
// a role, the role comes first. Long flags have two dashes.
func arguments(root *cobra.Command, args []string) []string {
	called, rest := filepath.Base(args[0]), args[1:]
	if len(rest) > 0 && rest[0] == volume.HoldCommand { // It is called by the name that the operator has.
		return rest
	}
	for _, role := range root.Commands() {
		if role.Name() == called || role.HasAlias(called) {
			return append([]string{role.Name()}, app.NormalizeDashes(role.Flags(), rest)...)
		}
	}
	if len(rest) > 0 {
		for _, role := range root.Commands() {
			if role.Name() == rest[0] || role.HasAlias(rest[0]) {
				return append(rest[:1:1], app.NormalizeDashes(role.Flags(), rest[1:])...)
			}
		}
	}
	return rest
}
