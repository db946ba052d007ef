package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	logsapi "k8s.io/component-base/logs/api/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/holdfast-io/holdfast/internal/app"
	"github.com/holdfast-io/holdfast/internal/attach"
	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// attacher is the role csi-attacher.
type attacher struct {
	driver   app.Driver
	kube     app.Kube
	leader   app.Leader
	gates    app.Gates
	endpoint app.Endpoint
	work     app.Work
	attach   attach.Options
	logging  *logsapi.LoggingConfiguration
}

func newAttacher() *cobra.Command {
	a := &attacher{
		driver:  app.Driver{Address: "/var/lib/csi/sockets/pluginproxy/csi.sock", Timeout: time.Minute},
		leader:  app.Leader{Enabled: true, Namespace: "kube-system"},
		logging: logsapi.NewLoggingConfiguration(),
	}
	command := &cobra.Command{
		Use:   "csi-attacher",
		Short: "Attach volumes to nodes, and detach them",
		Long: `Attach volumes to nodes through a CSI driver, and detach them, as
VolumeAttachments ask for it. It runs beside the driver and takes the place of
the program of that name, with the same flags.

Flags come before the environment variables in brackets, and those before the
defaults.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := a.complete(command); err != nil {
				return err
			}
			return a.run(command.Context())
		},
	}
	a.leader.AddGates(&a.gates)
	a.attach.AddGates(&a.gates)
	fs := command.Flags()
	a.gates.AddFlags(fs)
	app.AddProcessorFlag(fs)
	a.driver.AddFlags(fs)
	a.kube.AddFlags(fs)
	a.leader.AddFlags(fs)
	a.endpoint.AddFlags(fs)
	a.endpoint.AddSplitFlags(fs)
	a.work.AddFlags(fs)
	a.attach.AddFlags(fs)
	logsapi.AddFlags(a.logging, fs)
	withVersion(command)
	return command
}

func (a *attacher) complete(command *cobra.Command) error {
	err := app.FromEnvironment(command.Flags(),
		app.Variable{Name: "CSI_ENDPOINT", Flags: []string{"csi-address"}},
		app.Variable{Name: "KUBECONFIG", Flags: []string{"kubeconfig"}},
	)
	if err := errors.Join(err, a.leader.Validate(), a.endpoint.Validate()); err != nil {
		return err
	}
	return logsapi.ValidateAndApply(a.logging, nil)
}

func (a *attacher) run(ctx context.Context) error {
	ctx = ctrl.LoggerInto(ctx, app.SetLogger())
	driver, err := app.Connect(ctx, a.driver)
	if err != nil {
		return err
	}
	defer driver.Close()
	o := &a.attach
	o.Driver = driver.Info().Name
	o.Workers, o.RetryStart, o.RetryMax = a.work.Workers, a.work.RetryStart, a.work.RetryMax
	if err := o.Validate(); err != nil {
		return err
	}
	program := app.Program{
		Kube: a.kube, Leader: a.leader, Endpoint: a.endpoint,
		LeaseName: "external-attacher-leader-" + csi.SafeName(o.Driver), Component: "csi-attacher " + o.Driver, Metrics: driver.Gatherer(),
		Setup: func(ctx context.Context, m ctrl.Manager, events *kube.Events) error {
			if err := attach.Setup(ctx, m, driver, events, o); err != nil {
				return fmt.Errorf("setting up attaching: %w", err)
			}
			return nil
		},
	}
	return program.Run(ctx)
}
