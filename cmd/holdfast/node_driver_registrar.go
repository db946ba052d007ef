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

const (
	modeRegistration = "registration"
	modeProbe        = "kubelet-registration-probe"
)

// registrar is the role node-driver-registrar.
type registrar struct {
	mode    string
	driver  app.DriverOptions
	options register.Options
	logging *logsapi.LoggingConfiguration
}

func newRegistrar() *cobra.Command {
	r := &registrar{driver: app.DriverOptions{NodePart: true}, logging: logsapi.NewLoggingConfiguration()}
	command := &cobra.Command{
		Use:     "node-driver-registrar",
		Aliases: []string{"csi-node-driver-registrar"},
		Short:   "Register a CSI driver with the kubelet of its node",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := logsapi.ValidateAndApply(r.logging, nil); err != nil {
				return err
			}
			switch r.mode {
			case modeRegistration:
				return r.run(command.Context())
			case modeProbe:
				return register.Probe(r.options)
			default:
				return fmt.Errorf("--mode %q is neither %s nor %s", r.mode, modeRegistration, modeProbe)
			}
		},
	}
	fs := command.Flags()
	r.driver.AddFlags(fs)
	r.options.AddFlags(fs)
	fs.StringVar(&r.mode, "mode", modeRegistration, "registration, or kubelet-registration-probe: end with an error unless the kubelet has registered the driver")
	app.AddAutomaxprocsFlag(fs)
	app.AddLoggingFlags(r.logging, fs)
	addRetiredRegistrarFlags(fs)
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
