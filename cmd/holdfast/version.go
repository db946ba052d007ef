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

// withVersion gives a role the flag --version, after its other flags. It is
// declared at once, for those who write it with one dash.
func withVersion(role *cobra.Command) {
	role.Version = version()
	role.InitDefaultVersionFlag()
}

// version is that of the module, as the build recorded it, and what it was
// built with and for.
func version() string {
	module := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		module = info.Main.Version
	}
	return fmt.Sprintf("%s %s %s/%s", module, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
