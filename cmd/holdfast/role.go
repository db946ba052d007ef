package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // --logging-format=json

	"github.com/holdfast-io/holdfast/internal/app"
)

// role has the options that all roles with controllers share.
type role struct {
	kube     app.KubeOptions
	leader   app.LeaderElectionOptions
	gates    app.FeatureGates
	endpoint app.EndpointOptions
	work     app.WorkerOptions
	logging  *logsapi.LoggingConfiguration
}

// sidecar is a role that runs beside a driver.
type sidecar struct {
	role
	driver app.DriverOptions
}

// optionGroup is a group of options of one role.
type optionGroup interface{ AddFlags(fs *pflag.FlagSet) }

// A featureGated group also has feature gates.
type featureGated interface {
	AddFeatureGates(g interface {
		Add(name string, to *bool, usage string)
	})
}

// declare declares the flags that all roles share and those of the role's own groups.
// Values that the role has already are the defaults.
func (r *role) declare(command *cobra.Command, own ...optionGroup) {
	r.logging = logsapi.NewLoggingConfiguration()
	r.leader.AddFeatureGates(&r.gates)
	for _, g := range own {
		if g, ok := g.(featureGated); ok {
			g.AddFeatureGates(&r.gates)
		}
	}
	fs := command.Flags()
	app.AddAutomaxprocsFlag(fs)
	for _, g := range append([]optionGroup{&r.gates, &r.kube, &r.leader, &r.endpoint, &r.work}, own...) {
		g.AddFlags(fs)
	}
	app.AddLoggingFlags(r.logging, fs)
	addVersionFlag(command)
}

// declare also declares the flags of the driver connection.
func (s *sidecar) declare(command *cobra.Command, own ...optionGroup) {
	s.role.declare(command, append([]optionGroup{&s.driver}, own...)...)
	s.driver.AddLimitFlags(command.Flags())
}

// complete applies the environment and validates the options that all roles share.
// Further variables are the role's own.
func (r *role) complete(command *cobra.Command, further ...app.EnvVar) error {
	err := app.ApplyEnvironment(command.Flags(), append([]app.EnvVar{
		{Name: "RETRY_INTERVAL", Flags: []string{"retry-interval-start", "retry-interval-max"}},
		{Name: "KUBECONFIG", Flags: []string{"kubeconfig"}},
	}, further...)...)
	return errors.Join(err, r.leader.Validate(), r.endpoint.Validate())
}

func (s *sidecar) complete(command *cobra.Command, further ...app.EnvVar) error {
	err := s.role.complete(command, append(further, app.EnvVar{Name: "CSI_ENDPOINT", Flags: []string{"csi-address"}})...)
	return errors.Join(err, s.driver.CompleteLimits(s.work.Workers))
}

// runE returns the RunE function of a role's command. It completes the options, applies
// those of logging, and runs the role.
func (r *role) runE(complete func(*cobra.Command) error, run func(context.Context) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, _ []string) error {
		if err := complete(command); err != nil {
			return err
		}
		if err := logsapi.ValidateAndApply(r.logging, nil); err != nil {
			return err
		}
		return run(command.Context())
	}
}
