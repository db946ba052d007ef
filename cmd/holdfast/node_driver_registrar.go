package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	logsapi "k8s.io/component-base/logs/api/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/holdfast-io/holdfast/internal/app"
	"github.com/holdfast-io/holdfast/internal/register"
)

// registrar is the role node-driver-registrar.
type registrar struct {
	driver  app.DriverOptions
	options register.Options
	logging *logsapi.LoggingConfiguration
}

func newRegistrar() *cobra.Command {
	r := &registrar{driver: app.DriverOptions{NodePart: true}, logging: logsapi.NewLoggingConfiguration()}
	command := &cobra.Command{
		Use:   "node-driver-registrar",
		Short: "Register a CSI driver with the kubelet of its node",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := logsapi.ValidateAndApply(r.logging, nil); err != nil {
				return err
			}
			return r.run(command.Context())
		},
	}
	fs := command.Flags()
	r.driver.AddFlags(fs)
	r.options.AddFlags(fs)
	logsapi.AddFlags(r.logging, fs)
	addVersionFlag(command)
	return command
}

func (r *registrar) run(ctx context.Context) error {
	ctx = ctrl.LoggerInto(ctx, app.SetLogger())
	driver, err := app.Connect(ctx, r.driver)
	if err != nil {
		return err
	}
	r.options.Driver = driver.Info().Name
	if err := driver.Close(); err != nil {
		return fmt.Errorf("closing the connection to the driver: %w", err)
	}
	return register.Run(ctx, r.options)
}
