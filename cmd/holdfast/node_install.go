package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/internal/install"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// exitCode is 3 if the wrapper is not installed, and 1 for all other errors.
func exitCode(err error) int {
	if errors.Is(err, install.ErrNotInstalled) {
		return 3
	}
	return 1
}

// installation is what the commands about the wrapper have in common.
type installation struct {
	install.Options
}

func newInstallation() *installation {
	return &installation{install.Options{TicketDir: ticket.DefaultDir, Wait: 90 * time.Second}}
}

// addFlags declares the flags that say where the node is, for all three commands.
func (o *installation) addFlags(command *cobra.Command) {
	fs := command.Flags()
	fs.StringVar(&o.HostRoot, "host-root", "/", "where the node's file system is mounted")
	fs.StringVar(&o.InstallDir, "install-dir", install.DefaultDir, "directory of the node for the wrapper; programs in it must be executable")
	fs.StringVar(&o.Runtime, "runtime", "", "containerd or cri-o; empty for the one that runs on the node")
	fs.StringVar(&o.Config, "config", "", "configuration of the CRI runtime on the node; empty for that of the running process, or the usual one")
}

// addBinaryFlag declares the flag that names the current wrapper.
func (o *installation) addBinaryFlag(command *cobra.Command) {
	command.Flags().StringVar(&o.Binary, "binary", "", "the wrapper to install or to compare with; empty for the file holdfast-runtime beside this program")
}

func (o *installation) complete(command *cobra.Command) error {
	o.Out = command.OutOrStdout()
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding this program: %w", err)
		}
		o.Binary = filepath.Join(filepath.Dir(self), "holdfast-runtime")
	}
	return o.Validate()
}

func newNodeInstall() *cobra.Command {
	o := newInstallation()
	command := &cobra.Command{
		Use:   "install",
		Short: "Put holdfast-runtime in front of runc or crun on this node",
		Long: `Put the OCI runtime wrapper holdfast-runtime in front of runc or crun on this node, and
have containerd or CRI-O call it. Checkpoints can be restored on nodes with the wrapper.

A configuration that is not understood is rejected before anything is changed. A second
run changes nothing. The CRI runtime reads its configuration when it is restarted, which
this command does only with --restart. Running containers run on.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := o.complete(command); err != nil {
				return err
			}
			return install.Install(command.Context(), o.Options)
		},
	}
	o.addFlags(command)
	o.addBinaryFlag(command)
	fs := command.Flags()
	fs.StringSliceVar(&o.Handlers, "handler", nil, "handlers of the CRI runtime that shall call the wrapper; empty for the default one")
	fs.StringVar(&o.RuntimeClass, "runtime-class", "", "leave the existing handlers alone, and add one of this name for pods with a RuntimeClass")
	fs.StringVar(&o.TicketDir, "ticket-dir", o.TicketDir, "directory of the node in which the agent leaves the tickets of restores")
	fs.DurationVar(&o.Wait, "wait", o.Wait, "how long the start of a container that shall be restored waits for the agent")
	fs.BoolVar(&o.Restart, "restart", false, "restart the CRI runtime by systemctl if its configuration was changed")
	return command
}

func newNodeUninstall() *cobra.Command {
	o := newInstallation()
	command := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove holdfast-runtime from this node",
		Long: `Remove from the configuration of containerd or CRI-O what install has added, and nothing
else. The wrapper itself is removed when no container needs it any more: containerd calls
the OCI runtime with which a container was started until the container is deleted. Until
then the command says what it waits for; run it again later.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := o.complete(command); err != nil {
				return err
			}
			return install.Uninstall(command.Context(), o.Options)
		},
	}
	o.addFlags(command)
	command.Flags().BoolVar(&o.Restart, "restart", false, "restart the CRI runtime by systemctl if its configuration was changed")
	return command
}

func newNodeStatus() *cobra.Command {
	o, output := newInstallation(), ""
	command := &cobra.Command{
		Use:   "status",
		Short: "Show which handlers of this node call holdfast-runtime",
		Long: `Show which handlers of containerd or CRI-O call holdfast-runtime, and whether the running
one has read that configuration. The exit code is

  0  if the wrapper is installed and in effect,
  1  if something is missing, such as a restart, or on an error,
  3  if no handler calls the wrapper.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := o.complete(command); err != nil {
				return err
			}
			if output != "" && output != "json" {
				return fmt.Errorf("--output=%s: known is json", output)
			}
			status, err := install.GetStatus(command.Context(), o.Options)
			if err != nil {
				return err
			}
			if err := writeStatus(command.OutOrStdout(), status, output); err != nil {
				return err
			}
			return status.Err()
		},
	}
	o.addFlags(command)
	o.addBinaryFlag(command)
	command.Flags().StringSliceVar(&o.Handlers, "handler", nil, "handlers that must be installed; empty for all, of which one suffices")
	command.Flags().StringVarP(&output, "output", "o", "", "json, or empty for a table")
	return command
}

func writeStatus(out io.Writer, status install.Status, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(status)
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "HANDLER\tINSTALLED\tVERSION\tREAL RUNTIME\tPROBLEM")
	for _, h := range status.Handlers {
		version := h.Version
		if h.Outdated {
			version += " (outdated)"
		}
		fmt.Fprintf(table, "%s\t%t\t%s\t%s\t%s\n", h.Name, h.Installed, version, h.RealRuntime, h.Problem)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	switch {
	case status.RestartRequired:
		fmt.Fprintf(out, "%s must be restarted: it was started before its configuration was changed.\n", status.Runtime)
	case !status.Running:
		fmt.Fprintf(out, "%s does not run, or its process cannot be seen from here.\n", status.Runtime)
	}
	return nil
}
