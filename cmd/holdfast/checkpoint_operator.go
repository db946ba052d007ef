package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/app"
	"github.com/holdfast-io/holdfast/internal/checkpoint"
	"github.com/holdfast-io/holdfast/internal/checkpoint/volume"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/retention"
	"github.com/holdfast-io/holdfast/internal/schedule"
)

// checkpointOperator is the role checkpoint-operator.
type checkpointOperator struct {
	role
	level      app.LogLevel
	name       string
	namespaces []string
	checkpoint checkpoint.Options
	retention  retention.Options
	podName    string
	image      string
	schedule   schedule.Options
}

func newCheckpointOperator() *cobra.Command {
	o := &checkpointOperator{role: role{
		leader: app.LeaderElectionOptions{RetryPeriod: 2 * time.Second},
		work:   app.WorkerOptions{Workers: 10},
	}}
	return o.newCommand()
}

func (o *checkpointOperator) newCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "checkpoint-operator",
		Aliases: []string{"manager"},
		Short:   "Assign Checkpoints of running containers to the agents of their nodes",
		Long: `Assign Checkpoints of running containers to the agents of their nodes, which make and
store them (holdfast node), and delete expired ones. There is one operator in a cluster.

If the CheckpointSchedule CRD is installed, it also creates Checkpoints on schedules.

Flags override the environment variables in brackets, and these override the
defaults.`,
		Args: cobra.NoArgs,
		RunE: o.runE(o.complete, o.run),
	}
	fs := command.Flags()
	fs.StringVar(&o.name, "operator-name", "checkpoint-operator", "name of the operator: of its Lease and of the source of its events [OPERATOR_NAME]")
	fs.StringSliceVar(&o.namespaces, "watch-namespace", nil, "namespaces whose Checkpoints are served, separated by commas; empty for all [WATCH_NAMESPACE]")
	fs.StringVar(&o.podName, "pod-name", "", "name of the operator's pod, whose image the pods have that mount volumes [POD_NAME]")
	fs.StringVar(&o.image, "volume-image", "", "another image for these pods, which waits until it is stopped, such as registry.k8s.io/pause:3.10")
	o.endpoint.AddBindFlags(fs)
	o.declare(command, &o.level)
	fs.BoolVar(&o.leader.Enabled, "leader-elect", false, "the same as --leader-election")
	return command
}

func (o *checkpointOperator) complete(command *cobra.Command) error {
	err := o.role.complete(command,
		app.EnvVar{Name: "LOG_LEVEL", Flags: []string{"log-level"}},
		app.EnvVar{Name: "OPERATOR_NAME", Flags: []string{"operator-name"}},
		app.EnvVar{Name: "POD_NAME", Flags: []string{"pod-name"}},
		app.EnvVar{Name: "WATCH_NAMESPACE", Flags: []string{"watch-namespace"}},
		app.EnvVar{Name: "METRICS_PORT", Flags: []string{"metrics-bind-address"}},
		app.EnvVar{Name: "HEALTH_PROBE_PORT", Flags: []string{"health-probe-bind-address"}},
	)
	// Not that of the Lease: a Checkpoint in this namespace may name pods of all others.
	o.checkpoint = checkpoint.Options{
		Namespace: app.Namespace(""), Workers: o.work.Workers, RetryStart: o.work.RetryStart, RetryMax: o.work.RetryMax,
	}
	clock := &kube.Clock{}
	o.schedule = schedule.Options{
		Namespaces: o.namespaces, Workers: o.work.Workers, RetryStart: o.work.RetryStart, RetryMax: o.work.RetryMax, Clock: clock,
	}
	o.retention = retention.Options{
		Namespaces: o.namespaces, Workers: o.work.Workers, RetryStart: o.work.RetryStart, RetryMax: o.work.RetryMax, Clock: clock,
	}
	return errors.Join(err, o.checkpoint.Validate(), o.level.SetVerbosity(command.Flags()))
}

func (o *checkpointOperator) run(ctx context.Context) error {
	ctx = ctrl.LoggerInto(ctx, app.SetLogger(o.level.Filter))
	config, err := o.kube.Config()
	if err != nil {
		return err
	}
	if err := kube.WaitForResources(ctx, config, checkpoint.Resources, 30*time.Second); err != nil {
		return fmt.Errorf("waiting for the checkpoint API: %w", err)
	}
	program := app.Program{
		Kube: o.kube, Scheme: v1alpha1.AddToScheme, Leader: o.leader, Endpoint: o.endpoint,
		LeaseName: o.name, Component: o.name, Clock: o.schedule.Clock,
		Cache: func(into *cache.Options) {
			checkpoint.CacheOptions(o.namespaces, into)
			schedule.CheckpointCacheOptions(&o.schedule, into)
		},
		Setup: func(ctx context.Context, m ctrl.Manager, events *kube.Events) error {
			if err := checkpoint.Setup(ctx, m, events, &o.checkpoint); err != nil {
				return fmt.Errorf("setting up checkpoints: %w", err)
			}
			if err := retention.Setup(ctx, m, events, &o.retention); err != nil {
				return fmt.Errorf("setting up retention: %w", err)
			}
			if err := o.setupVolumes(m, events); err != nil {
				return fmt.Errorf("setting up the volumes of checkpoints: %w", err)
			}
			if err := schedule.SetupCheckpoints(ctx, m, events, &o.schedule); err != nil {
				return fmt.Errorf("setting up schedules: %w", err)
			}
			return nil
		},
	}
	return program.Run(ctx)
}

func (o *checkpointOperator) setupVolumes(m ctrl.Manager, events *kube.Events) error {
	options := volume.Options{Workers: o.work.Workers, RetryStart: o.work.RetryStart, RetryMax: o.work.RetryMax}
	if o.image != "" {
		options.Program = func(context.Context) (*volume.Program, error) { return &volume.Program{Image: o.image}, nil }
	}
	return volume.Setup(m, events, client.ObjectKey{Namespace: o.checkpoint.Namespace, Name: o.podName}, &options)
}
