package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/holdfast-io/holdfast/internal/app"
	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/groupsnapshot"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	snapshotsidecar "github.com/holdfast-io/holdfast/internal/snapshot/sidecar"
)

// snapshotter is the role csi-snapshotter.
type snapshotter struct {
	sidecar
	resync    time.Duration
	perNode   bool // one csi-snapshotter on each node
	naming    snapshot.Naming
	snapshots snapshotsidecar.Options
	groups    groupsnapshot.Options
	orphans   snapshotsidecar.OrphanOptions
}

func newSnapshotter() *cobra.Command {
	s := &snapshotter{sidecar: sidecar{
		driver: app.DriverOptions{Timeout: time.Minute},
		role:   role{work: app.WorkerOptions{Workers: 10}},
	}}
	command := &cobra.Command{
		Use:   "csi-snapshotter",
		Short: "Create and delete snapshots through a CSI driver",
		Long: `Create snapshots through a CSI driver, watch them until they are ready, and delete
them, according to VolumeSnapshotContents. This role runs as a sidecar of the
driver. It replaces upstream's csi-snapshotter and has the same flags. It needs the
cluster's snapshot-controller, which is shared by all drivers.

Flags override the environment variables in brackets, and these override the
defaults.`,
		Args: cobra.NoArgs,
		RunE: s.runE(s.complete, s.run),
	}
	fs := command.Flags()
	fs.DurationVar(&s.resync, "resync-period", 15*time.Minute, "how often all contents are reconciled, even if unchanged")
	fs.StringVar(&s.naming.Prefix, "snapshot-name-prefix", "snapshot", "prefix of the names of snapshots at the driver")
	fs.IntVar(&s.naming.Length, "snapshot-name-uuid-length", -1, "number of characters of the snapshot's UID in its name at the driver, 8 to 32; -1 for the whole UID with dashes")
	fs.BoolVar(&s.perNode, "node-deployment", false, "run one csi-snapshotter on each node, which handles only the snapshots of its node's volumes [NODE_NAME]")
	s.declare(command, &s.snapshots, &s.groups, &s.orphans)
	addRetiredSnapshotterFlags(fs)
	return command
}

func (s *snapshotter) complete(command *cobra.Command) error {
	err := s.sidecar.complete(command)
	o := &s.snapshots
	o.Workers, o.RetryStart, o.RetryMax = s.work.Workers, s.work.RetryStart, s.work.RetryMax
	return errors.Join(err, o.Validate(), s.orphans.Validate(), s.naming.Validate("snapshot"), s.groups.Naming.Validate("groupsnapshot"), s.checkNode())
}

// checkNode validates the options of a csi-snapshotter on each node.
func (s *snapshotter) checkNode() error {
	if !s.perNode {
		return nil
	}
	s.snapshots.Node = os.Getenv("NODE_NAME")
	var errs []error
	if s.snapshots.Node == "" {
		errs = append(errs, errors.New("--node-deployment: the environment variable NODE_NAME must be the name of the node"))
	}
	if s.leader.Enabled {
		errs = append(errs, errors.New("--node-deployment and --leader-election: the csi-snapshotter of every node must work, so remove --leader-election"))
	}
	return errors.Join(errs...)
}

func (s *snapshotter) run(ctx context.Context) error {
	ctx = ctrl.LoggerInto(ctx, app.SetLogger())
	driver, err := app.Connect(ctx, s.driver)
	if err != nil {
		return err
	}
	defer driver.Close()
	if err := snapshotsidecar.CheckCapabilities(driver); err != nil {
		return err
	}
	config, err := s.kube.Config()
	if err != nil {
		return err
	}
	if err := kube.WaitForResources(ctx, config, snapshot.Resources, crdCheckInterval); err != nil {
		return fmt.Errorf("waiting for the snapshot API: %w", err)
	}
	version, err := groupsnapshot.ServedVersion(config)
	if err != nil {
		return err
	}
	s.snapshots.Driver, s.snapshots.Kind = driver.Info().Name, snapshotsidecar.SingleKind{Names: s.naming}
	program := app.Program{
		Kube: s.kube, Scheme: version.AddToScheme, Leader: s.leader, Endpoint: s.endpoint,
		LeaseName: "external-snapshotter-leader-" + csi.SafeName(s.snapshots.Driver),
		Component: "csi-snapshotter " + s.snapshots.Driver, Metrics: driver.Gatherer(),
		Cache: func(o *cache.Options) {
			o.SyncPeriod = &s.resync
			snapshotsidecar.CacheOptions(&s.snapshots, o)
		},
		Setup: func(ctx context.Context, m ctrl.Manager, events *kube.Events) error {
			if err := snapshotsidecar.Setup(ctx, m, driver, events, &s.snapshots); err != nil {
				return fmt.Errorf("setting up snapshots: %w", err)
			}
			if err := snapshotsidecar.SetupOrphanScan(m, driver, events, s.naming, &s.orphans); err != nil {
				return fmt.Errorf("setting up the search for orphaned snapshots: %w", err)
			}
			return s.setUpGroups(ctx, m, driver, events)
		},
	}
	return program.Run(ctx)
}

// setUpGroups adds the controllers of group snapshots when their CRDs are installed, if
// the driver supports group snapshots.
func (s *snapshotter) setUpGroups(ctx context.Context, m ctrl.Manager, driver *csi.Driver, events *kube.Events) error {
	if !s.groups.Enabled {
		return nil
	}
	if !groupsnapshot.Supported(driver) {
		ctrl.LoggerFrom(ctx).Info("The driver does not support group snapshots: it lacks the capability CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT", "driver", s.snapshots.Driver)
		return nil
	}
	o := s.snapshots
	o.Kind = groupsnapshot.ContentKind{Names: s.groups.Naming}
	return kube.SetupWhenAvailable(ctx, m, groupsnapshot.SidecarKinds(), crdCheckInterval, func(ctx context.Context) error {
		if err := snapshotsidecar.Setup(ctx, m, driver, events, &o); err != nil {
			return fmt.Errorf("setting up group snapshots: %w", err)
		}
		return nil
	})
}

// crdCheckInterval is the maximum pause between two checks for CRDs.
const crdCheckInterval = 30 * time.Second
