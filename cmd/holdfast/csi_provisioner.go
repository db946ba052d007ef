package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/holdfast-io/holdfast/internal/app"
	"github.com/holdfast-io/holdfast/internal/capacity"
	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/migrate"
	"github.com/holdfast-io/holdfast/internal/provision"
	"github.com/holdfast-io/holdfast/internal/reclaim"
)

// provisioner is the role csi-provisioner.
type provisioner struct {
	sidecar
	provision provision.Options
	reclaim   reclaim.Options
	capacity  capacity.Options
}

func newProvisioner() *cobra.Command {
	p := &provisioner{}
	command := &cobra.Command{
		Use:   "csi-provisioner",
		Short: "Create volumes for claims and delete released ones",
		Long: `Create volumes for PersistentVolumeClaims through a CSI driver, and delete the
volumes of released PersistentVolumes with reclaim policy Delete. This role runs as
a sidecar of the driver. It replaces upstream's csi-provisioner and has the same
flags.

Flags override the environment variables in brackets, and these override the
defaults.`,
		Args: cobra.NoArgs,
		RunE: p.runE(p.complete, p.run),
	}
	p.gates.AddAlwaysOn("HonorPVReclaimPolicy", "a volume goes by its reclaim policy also if its PersistentVolume is deleted first, "+
		"and nothing switches that off; set persistentVolumeReclaimPolicy: Retain on volumes that must stay")
	p.gates.AddAlwaysOn("CSINodeExpandSecret", "")
	p.declare(command, &p.provision, &p.capacity)
	addRetiredProvisionerFlags(command.Flags())
	return command
}

// complete applies the environment and validates options that do not depend on the
// driver.
func (p *provisioner) complete(command *cobra.Command) error {
	err := p.sidecar.complete(command,
		app.EnvVar{Name: "PROVISIONER_NAME", Flags: []string{"provisioner"}},
		app.EnvVar{Name: "STORAGECLASS_WHITELIST", Flags: []string{"storageclass-whitelist"}},
		app.EnvVar{Name: "VERBOSE", Flags: []string{"v"}},
	)
	return errors.Join(err, p.checkNode())
}

func (p *provisioner) run(ctx context.Context) error {
	ctx = ctrl.LoggerInto(ctx, app.SetLogger())
	driver, err := app.Connect(ctx, p.driver)
	if err != nil {
		return err
	}
	defer driver.Close()
	if err := p.findNode(ctx, driver); err != nil {
		return err
	}
	if err := p.setDriver(driver.Info().Name); err != nil {
		return err
	}
	p.provision.Metrics, p.reclaim.Metrics = provision.NewMetrics(metrics.Registry), reclaim.NewMetrics(metrics.Registry)
	program := app.Program{
		Kube: p.kube, Leader: p.leader, Endpoint: p.endpoint,
		LeaseName: csi.SafeName(p.provision.Driver), Component: p.provision.Provisioner, Metrics: driver.Gatherer(),
		Cache: func(o *cache.Options) {
			provision.CacheOptions(&p.provision, o)
			reclaim.CacheOptions(p.provision.Driver, o)
			capacity.CacheOptions(&p.capacity, o)
		},
		Setup: func(ctx context.Context, m ctrl.Manager, events *kube.Events) error {
			return p.setup(ctx, m, driver, events)
		},
	}
	return program.Run(ctx)
}

// setDriver sets the options that depend on the driver's name and validates them.
func (p *provisioner) setDriver(driver string) error {
	o := &p.provision
	o.Driver, o.Plugin = driver, migrate.ForDriver(driver)
	if o.Provisioner == "" {
		o.Provisioner = driver
	}
	// This is the form of upstream's csi-provisioner.
	o.Identity = fmt.Sprintf("%d-%d-%s", time.Now().UnixMilli(), rand.IntN(10000), p.identitySuffix(driver)) //nolint:gosec // It distinguishes processes and is no secret.
	o.Namespace = app.Namespace(p.leader.Namespace)
	o.Workers, o.RetryStart, o.RetryMax = p.work.Workers, p.work.RetryStart, p.work.RetryMax

	d := &p.reclaim
	d.Driver, d.Provisioner, d.Plugin, d.Segment = o.Driver, o.Provisioner, o.Plugin, o.Node.Segment
	d.Node = o.Node.Name
	d.Workers, d.RetryStart, d.RetryMax = p.work.Workers, p.work.RetryStart, p.work.RetryMax

	c := &p.capacity
	c.Driver, c.Provisioner, c.Classes, c.Topology = o.Driver, o.Provisioner, o.Classes, o.Topology
	c.Node, c.Segment = o.Node.Name, o.Node.Segment
	c.Namespace, c.Pod = cmp.Or(os.Getenv("NAMESPACE"), o.Namespace), os.Getenv("POD_NAME")
	c.RetryStart, c.RetryMax = p.work.RetryStart, p.work.RetryMax
	return errors.Join(o.Validate(), c.Validate())
}

func (p *provisioner) setup(ctx context.Context, m ctrl.Manager, driver *csi.Driver, events *kube.Events) error {
	if err := provision.Setup(ctx, m, driver, events, &p.provision); err != nil {
		return fmt.Errorf("setting up provisioning: %w", err)
	}
	if err := reclaim.Setup(ctx, m, driver, events, &p.reclaim); err != nil {
		return fmt.Errorf("setting up reclaiming: %w", err)
	}
	if err := capacity.Setup(ctx, m, driver, events, &p.capacity); err != nil {
		return fmt.Errorf("setting up capacity: %w", err)
	}
	return nil
}
