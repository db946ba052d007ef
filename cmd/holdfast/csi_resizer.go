package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/holdfast-io/holdfast/internal/app"
	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/migrate"
	"github.com/holdfast-io/holdfast/internal/resize"
)

// resizer is the role csi-resizer.
type resizer struct {
	sidecar
	resync time.Duration
	resize resize.Options
}

func newResizer() *cobra.Command {
	r := &resizer{sidecar: sidecar{role: role{work: app.WorkerOptions{Flag: "workers", Workers: 10}}}}
	command := &cobra.Command{
		Use:   "csi-resizer",
		Short: "Make volumes larger, and give them other attributes",
		Long: `Make volumes as large as their claims request, and give them the attributes of
their claims' VolumeAttributesClass, through a CSI driver. It runs beside the
driver and takes the place of the program of that name, with the same flags.

Flags come before the environment variables in brackets, and those before the
defaults.`,
		Args: cobra.NoArgs,
		RunE: r.runs(r.complete, r.run),
	}
	command.Flags().DurationVar(&r.resync, "resync-period", 10*time.Minute, "how often all claims are looked at again, changed or not")
	r.declare(command, &r.resize)
	return command
}

// complete adds what the environment says and checks what needs no driver.
func (r *resizer) complete(command *cobra.Command) error {
	err := r.sidecar.complete(command)
	o := &r.resize
	o.Workers, o.RetryStart, o.RetryMax = r.work.Workers, r.work.RetryStart, r.work.RetryMax
	return errors.Join(err, o.Validate())
}

func (r *resizer) run(ctx context.Context) error {
	ctx = ctrl.LoggerInto(ctx, app.SetLogger())
	driver, err := app.Connect(ctx, r.driver)
	if err != nil {
		return err
	}
	defer driver.Close()
	r.resize.Driver = driver.Info().Name
	r.resize.Plugin = migrate.ForDriver(r.resize.Driver)
	if err := resize.CheckCapabilities(ctx, driver); err != nil {
		return err
	}
	program := app.Program{
		Kube: r.kube, Leader: r.leader, Endpoint: r.endpoint,
		LeaseName: "external-resizer-" + csi.SafeName(r.resize.Driver),
		// The component's name is that of the program whose place the role takes.
		Component: "external-resizer " + r.resize.Driver, Metrics: driver.Gatherer(),
		Cache: func(o *cache.Options) { o.SyncPeriod = &r.resync },
		Setup: func(ctx context.Context, m ctrl.Manager, events *kube.Events) error {
			if err := resize.Setup(ctx, m, driver, events, &r.resize); err != nil {
				return fmt.Errorf("setting up resizing: %w", err)
			}
			return nil
		},
	}
	return program.Run(ctx)
}
