package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
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
	endpoint app.Endpoint
	work     app.Work
	attach   attach.Options
	logging  *logsapi.LoggingConfiguration
}

func newAttacher() *cobra.Command {
	a := &attacher{logging: logsapi.NewLoggingConfiguration()}
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
	fs := command.Flags()
	a.driver.AddFlags(fs)
	a.kube.AddFlags(fs)
	a.leader.AddFlags(fs)
	a.endpoint.AddFlags(fs)
	a.work.AddFlags(fs)
	a.attach.AddFlags(fs)
	logsapi.AddFlags(a.logging, fs)
	return command
}

func (a *attacher) complete(command *cobra.Command) error {
	err := app.FromEnvironment(command.Flags(),
		app.Variable{Name: "CSI_ENDPOINT", Flags: []string{"csi-address"}},
		app.Variable{Name: "KUBECONFIG", Flags: []string{"kubeconfig"}},
	)
	if err := errors.Join(err, a.leader.Validate()); err != nil {
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
	manager := app.Manager{Kube: a.kube, Leader: a.leader, LeaseName: "external-attacher-leader-" + csi.SafeName(o.Driver)}
	m, err := manager.New(ctx)
	if err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfigAndClient(m.GetConfig(), m.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("making a client for events: %w", err)
	}
	events := kube.NewEvents(ctx, clients, m.GetScheme(), "csi-attacher "+o.Driver)
	if err := app.Serve(ctx, m, a.endpoint, app.Gatherer(driver)); err != nil {
		return err
	}
	if err := attach.Setup(ctx, m, driver, events, o); err != nil {
		return fmt.Errorf("setting up attaching: %w", err)
	}
	return m.Start(ctx)
}
