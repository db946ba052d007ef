// Command local-driver is a CSI driver for volumes that are files on one machine.
package main

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/driver/local"
)

// version is set when a release is built.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once: whatever it was doing is safe.
	context.AfterFunc(ctx, stop)
	err := command().ExecuteContext(ctx)
	klog.Flush()
	if err != nil {
		os.Exit(1)
	}
}

func command() *cobra.Command {
	o := local.Options{Version: version}
	cmd := &cobra.Command{
		Use:          "local-driver",
		Short:        "A CSI driver for volumes that are files on one machine",
		Version:      version,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE:         func(cmd *cobra.Command, _ []string) error { return local.Run(cmd.Context(), o) },
	}
	o.AddFlags(cmd.Flags())
	var logging flag.FlagSet
	klog.InitFlags(&logging)
	cmd.Flags().AddGoFlag(logging.Lookup("v"))
	return cmd
}
