package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/holdfast-io/holdfast/internal/app"
	"github.com/holdfast-io/holdfast/internal/attach"
	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/migrate"
)

// attacher is the role csi-attacher.
type attacher struct {
	sidecar
	attach attach.Options
}

func newAttacher() *cobra.Command {
	a := &attacher{sidecar: sidecar{
		driver: app.DriverOptions{Address: "/var/lib/csi/sockets/pluginproxy/csi.sock", Timeout: time.Minute},
		role:   role{leader: app.LeaderElectionOptions{Enabled: true, Namespace: "kube-system"}},
	}}
	command := &cobra.Command{
		Use:   "csi-attacher",
		Short: "Attach volumes to nodes and detach them",
		Long: `Attach volumes to nodes and detach them through a CSI driver, according to
VolumeAttachments. This role runs as a sidecar of the driver. It replaces
upstream's csi-attacher and has the same flags.

Flags override the environment variables in brackets, and these override the
defaults.`,
		Args: cobra.NoArgs,
		RunE: a.runE(a.complete, a.run),
	}
	a.endpoint.AddSplitFlags(command.Flags())
	a.declare(command, &a.attach)
	addRetiredAttacherFlags(command.Flags())
	return command
}

func (a *attacher) complete(command *cobra.Command) error { return a.sidecar.complete(command) }

func (a *attacher) run(ctx context.Context) error {
	ctx = ctrl.LoggerInto(ctx, app.SetLogger())
	driver, err := app.Connect(ctx, a.driver)
	if err != nil {
		return err
	}
	defer driver.Close()
	o := &a.attach
	o.Driver = driver.Info().Name
	o.Plugin = migrate.ForDriver(o.Driver)
	o.Workers, o.RetryStart, o.RetryMax = a.work.Workers, a.work.RetryStart, a.work.RetryMax
	if err := o.Validate(); err != nil {
		return err
	}
	program := app.Program{
		Kube: a.kube, Leader: a.leader, Endpoint: a.endpoint,
		LeaseName: "external-attacher-leader-" + csi.SafeName(o.Driver), Component: "csi-attacher " + o.Driver, Metrics: driver.Gatherer(),
		Cache: func(into *cache.Options) { attach.CacheOptions(o, into) },
		Setup: func(ctx context.Context, m ctrl.Manager, events *kube.Events) error {
			if err := attach.Setup(ctx, m, driver, events, o); err != nil {
				return fmt.Errorf("setting up attaching: %w", err)
			}
			return nil
		},
	}
	return program.Run(ctx)
}
