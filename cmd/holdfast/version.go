package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(command *cobra.Command, _ []string) {
			fmt.Fprintln(command.OutOrStdout(), "holdfast", version())
		},
	}
}

// addVersionFlag declares --version, after the role's other flags. cobra would declare it
// only when it parses, which is too late for -version with one dash.
func addVersionFlag(role *cobra.Command) {
	role.Version = version()
	role.InitDefaultVersionFlag()
}

// version returns the version of the module as the build recorded it, the version of Go,
// and the platform.
func version() string {
	module := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		module = info.Main.Version
	}
	return fmt.Sprintf("%s %s %s/%s", module, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
