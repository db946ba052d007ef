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
	deployed  bool // one on each node
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
		Short: "Make snapshots at a driver, and delete them",
		Long: `Make snapshots through a CSI driver, follow them until they are ready, and delete
them, as VolumeSnapshotContents ask for it. It runs beside the driver and takes
the place of the program of that name, with the same flags. It needs a
snapshot-controller in the cluster, of which there is one for all drivers.

Flags come before the environment variables in brackets, and those before the
defaults.`,
		Args: cobra.NoArgs,
		RunE: s.runs(s.complete, s.run),
	}
	fs := command.Flags()
	fs.DurationVar(&s.resync, "resync-period", 15*time.Minute, "how often all contents are looked at again, changed or not")
	fs.StringVar(&s.naming.Prefix, "snapshot-name-prefix", "snapshot", "what the driver's names of snapshots begin with")
	fs.IntVar(&s.naming.Length, "snapshot-name-uuid-length", -1, "how much of the snapshot's UID is in the driver's name of it, 8 to 32; -1 for all, with its dashes")
	fs.BoolVar(&s.deployed, "node-deployment", false, "work only on the snapshots of this node's volumes: there is one csi-snapshotter on each node [NODE_NAME]")
	s.declare(command, &s.snapshots, &s.groups, &s.orphans)
	return command
}

func (s *snapshotter) complete(command *cobra.Command) error {
	err := s.sidecar.complete(command)
	o := &s.snapshots
	o.Workers, o.RetryStart, o.RetryMax = s.work.Workers, s.work.RetryStart, s.work.RetryMax
	return errors.Join(err, o.Validate(), s.orphans.Validate(), s.naming.Validate("snapshot"), s.groups.Naming.Validate("groupsnapshot"), s.checkNode())
}

// checkNode checks what goes together with one csi-snapshotter on each node.
func (s *snapshotter) checkNode() error {
	if !s.deployed {
		return nil
	}
	s.snapshots.Node = os.Getenv("NODE_NAME")
	var errs []error
	if s.snapshots.Node == "" {
		errs = append(errs, errors.New("--node-deployment: which node this is must be in the environment variable NODE_NAME"))
	}
	if s.leader.Enabled {
		errs = append(errs, errors.New("--node-deployment and --leader-election: every node's csi-snapshotter acts, so take --leader-election away"))
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
	if err := kube.WaitForResources(ctx, config, snapshot.Resources, 30*time.Second); err != nil {
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
				return fmt.Errorf("setting up the search for orphans: %w", err)
			}
			return s.setUpGroups(ctx, m, driver, events)
		},
	}
	return program.Run(ctx)
}

// setUpGroups adds the controllers of groups when their kinds are installed, if
// the driver makes any.
func (s *snapshotter) setUpGroups(ctx context.Context, m ctrl.Manager, driver *csi.Driver, events *kube.Events) error {
	if !s.groups.Enabled {
		return nil
	}
	if !groupsnapshot.Supported(driver) {
		ctrl.LoggerFrom(ctx).Info("The driver makes no group snapshots: it does not announce CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT", "driver", s.snapshots.Driver)
		return nil
	}
	o := s.snapshots
	o.Kind = groupsnapshot.ContentKind{Names: s.groups.Naming}
	return kube.SetupWhenAvailable(ctx, m, groupsnapshot.SidecarKinds(), lookForGroups, func(ctx context.Context) error {
		if err := snapshotsidecar.Setup(ctx, m, driver, events, &o); err != nil {
			return fmt.Errorf("setting up group snapshots: %w", err)
		}
		return nil
	})
}

// lookForGroups is the longest pause between two looks whether the kinds of group
// snapshots are there.
const lookForGroups = 30 * time.Second
