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
	return r.command()
}

func (r *resizer) command() *cobra.Command {
	command := &cobra.Command{
		Use:   "csi-resizer",
		Short: "Expand volumes and modify their attributes",
		Long: `Expand volumes to the size that their claims request, and apply the
VolumeAttributesClass of their claims, through a CSI driver. This role runs as a
sidecar of the driver. It replaces upstream's csi-resizer and has the same flags.

Flags override the environment variables in brackets, and these override the
defaults.`,
		Args: cobra.NoArgs,
		RunE: r.runE(r.complete, r.run),
	}
	command.Flags().DurationVar(&r.resync, "resync-period", 10*time.Minute, "how often all claims are reconciled, even if unchanged")
	r.declare(command, &r.resize)
	addRetiredResizerFlags(command.Flags())
	return command
}

// complete applies the environment and validates options that do not depend on the
// driver.
func (r *resizer) complete(command *cobra.Command) error {
	err := r.sidecar.complete(command)
	o := &r.resize
	if command.Flags().Changed("timeout") {
		o.ExpandTimeout, o.ModifyTimeout = 0, 0 // As in upstream's program: it overrides both.
	}
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
		// This is the component of upstream's csi-resizer.
		Component: "external-resizer " + r.resize.Driver, Metrics: driver.Gatherer(),
		Cache: func(o *cache.Options) {
			o.SyncPeriod = &r.resync
			resize.CacheOptions(&r.resize, o)
		},
		Setup: func(ctx context.Context, m ctrl.Manager, events *kube.Events) error {
			if err := resize.Setup(ctx, m, driver, events, &r.resize); err != nil {
				return fmt.Errorf("setting up resizing: %w", err)
			}
			return nil
		},
	}
	return program.Run(ctx)
}
