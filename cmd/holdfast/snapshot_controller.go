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
	"github.com/holdfast-io/holdfast/internal/groupsnapshot"
	groupcontroller "github.com/holdfast-io/holdfast/internal/groupsnapshot/controller"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/schedule"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	snapshotcontroller "github.com/holdfast-io/holdfast/internal/snapshot/controller"
)

// snapshotController is the role snapshot-controller.
type snapshotController struct {
	role
	level            app.LogLevel
	resync           time.Duration
	crdCheckInterval time.Duration // maximum pause between two checks for the CRDs
	bind             snapshotcontroller.Options

	schedule schedule.Options
}

func newSnapshotController() *cobra.Command {
	s := &snapshotController{role: role{
		leader: app.LeaderElectionOptions{RetryPeriod: 2 * time.Second},
		work:   app.WorkerOptions{Workers: 5},
	}}
	command := &cobra.Command{
		Use:   "snapshot-controller",
		Short: "Create VolumeSnapshotContents for VolumeSnapshots and bind them",
		Long: `Create VolumeSnapshotContents for VolumeSnapshots, bind the two to each other, and
delete the contents of deleted VolumeSnapshots. The csi-snapshotter of each driver
creates the snapshots. There is one snapshot-controller for all drivers of a
cluster. It replaces upstream's snapshot-controller and has the same flags.

If the SnapshotSchedule CRD is installed, it also takes snapshots on schedules.

Flags override the environment variables in brackets, and these override the
defaults.`,
		Args: cobra.NoArgs,
		RunE: s.runE(s.complete, s.run),
	}
	fs := command.Flags()
	fs.DurationVar(&s.resync, "resync-period", 15*time.Minute, "how often all snapshots are reconciled, even if unchanged")
	fs.DurationVar(&s.crdCheckInterval, "retry-crd-interval-max", 30*time.Second, "maximum pause between two checks for the CRDs of the snapshot API at the start; at least 1s")
	s.declare(command, &s.level, &s.bind)
	addRetiredSnapshotControllerFlags(fs)
	return command
}

func (s *snapshotController) complete(command *cobra.Command) error {
	err := s.role.complete(command,
		app.EnvVar{Name: "LOG_LEVEL", Flags: []string{"log-level"}},
		app.EnvVar{Name: "LEASE_DURATION", Flags: []string{"leader-election-lease-duration"}},
		app.EnvVar{Name: "RENEW_DEADLINE", Flags: []string{"leader-election-renew-deadline"}},
		app.EnvVar{Name: "RETRY_PERIOD", Flags: []string{"leader-election-retry-period"}},
		app.EnvVar{Name: "WATCH_NAMESPACE", Flags: []string{"watch-namespace"}},
		app.EnvVar{Name: "WORKERS", Flags: []string{"worker-threads"}},
	)
	o := &s.bind
	o.Workers, o.RetryStart, o.RetryMax = s.work.Workers, s.work.RetryStart, s.work.RetryMax
	s.schedule = schedule.Options{Namespaces: o.Namespaces, Workers: o.Workers, RetryStart: o.RetryStart, RetryMax: o.RetryMax, Clock: &kube.Clock{}}
	if s.crdCheckInterval < time.Second {
		err = errors.Join(err, fmt.Errorf("--retry-crd-interval-max %s must be at least 1s", s.crdCheckInterval))
	}
	return errors.Join(err, o.Validate(), s.level.SetVerbosity(command.Flags()))
}

func (s *snapshotController) run(ctx context.Context) error {
	ctx = ctrl.LoggerInto(ctx, app.SetLogger(s.level.Filter))
	config, err := s.kube.Config()
	if err != nil {
		return err
	}
	if err := kube.WaitForResources(ctx, config, snapshot.Resources, s.crdCheckInterval); err != nil {
		return fmt.Errorf("waiting for the snapshot API: %w", err)
	}
	version, err := groupsnapshot.ServedVersion(config)
	if err != nil {
		return err
	}
	program := app.Program{
		Kube: s.kube, Scheme: version.AddToScheme, Leader: s.leader, Endpoint: s.endpoint,
		LeaseName: "snapshot-controller-leader", Component: "snapshot-controller",
		Clock: s.schedule.Clock,
		Cache: func(o *cache.Options) {
			o.SyncPeriod = &s.resync
			snapshotcontroller.CacheOptions(&s.bind, o)
			schedule.SnapshotCacheOptions(&s.schedule, o)
		},
		Setup: func(ctx context.Context, m ctrl.Manager, events *kube.Events) error {
			return s.setUp(ctx, m, events)
		},
	}
	return program.Run(ctx)
}

// setUp adds the controllers. It adds those of group snapshots when their CRDs are
// installed.
func (s *snapshotController) setUp(ctx context.Context, m ctrl.Manager, events *kube.Events) error {
	groups := groupcontroller.New(m.GetAPIReader(), &s.bind)
	controllers, err := snapshotcontroller.Setup(ctx, m, events, groups, &s.bind)
	if err != nil {
		return fmt.Errorf("setting up the controllers of snapshots: %w", err)
	}
	if err := schedule.SetupSnapshots(ctx, m, events, &s.schedule); err != nil {
		return fmt.Errorf("setting up schedules: %w", err)
	}
	if !s.bind.Groups {
		return nil
	}
	return kube.SetupWhenAvailable(ctx, m, groupsnapshot.ControllerKinds(), s.crdCheckInterval, func(ctx context.Context) error {
		if err := groups.Setup(ctx, m, events, controllers); err != nil {
			return fmt.Errorf("setting up group snapshots: %w", err)
		}
		return nil
	})
}
