package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/holdfast-io/holdfast/internal/app"
	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/liveness"
)

// livenessProbe is the role livenessprobe.
type livenessProbe struct {
	address string
	options liveness.Options
	logging *logsapi.LoggingConfiguration
}

func newLivenessProbe() *cobra.Command {
	p := &livenessProbe{logging: logsapi.NewLoggingConfiguration()}
	command := &cobra.Command{
		Use:   "livenessprobe",
		Short: "Answer the kubelet's liveness probe of a CSI driver",
		Long: `Answer HTTP requests at /healthz with 200 if the CSI driver is ready, and with 500 and
the reason if it is not. This role runs as a sidecar of the driver. It replaces
upstream's livenessprobe and has the same flags.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			err := app.ApplyEnvironment(command.Flags(), app.EnvVar{Name: "CSI_ENDPOINT", Flags: []string{"csi-address"}})
			if err := errors.Join(err, p.options.Validate()); err != nil {
				return err
			}
			if err := logsapi.ValidateAndApply(p.logging, nil); err != nil {
				return err
			}
			return p.run(command.Context())
		},
	}
	fs := command.Flags()
	fs.StringVar(&p.address, "csi-address", "/run/csi/socket", "socket of the CSI driver: a path or a unix:// URL [CSI_ENDPOINT]")
	p.options.AddFlags(fs)
	app.AddAutomaxprocsFlag(fs)
	app.AddLoggingFlags(p.logging, fs)
	app.AddRetiredFlags(fs, connectionTimeout)
	addVersionFlag(command)
	return command
}

func (p *livenessProbe) run(ctx context.Context) error {
	ctx = ctrl.LoggerInto(ctx, app.SetLogger())
	driver, err := csi.Connect(ctx, csi.Options{Address: p.address, Timeout: p.options.ProbeTimeout, NodeOnly: true})
	if err != nil {
		return err
	}
	defer driver.Close()
	go func() {
		// The metrics have the driver's name. Its health is what /healthz says.
		if _, err := driver.WaitReady(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).V(2).Info("The metrics do without the driver's name", "reason", err.Error())
		}
	}()
	return liveness.Run(ctx, driver, driver.Gatherer(), p.options)
}
