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

// role is what all roles have in common that run controllers.
type role struct {
	kube     app.KubeOptions
	leader   app.LeaderElectionOptions
	gates    app.FeatureGates
	endpoint app.EndpointOptions
	work     app.WorkerOptions
	logging  *logsapi.LoggingConfiguration
}

// sidecar is a role that stands beside a driver.
type sidecar struct {
	role
	driver app.DriverOptions
}

// A group of options that a role has beside those.
type group interface{ AddFlags(fs *pflag.FlagSet) }

// A featureGated group also has feature gates.
type featureGated interface {
	AddFeatureGates(g interface {
		Add(name string, to *bool, usage string)
	})
}

// declare gives a role its flags: those of all, and those of its own groups.
// What the role holds already are its defaults.
func (r *role) declare(command *cobra.Command, own ...group) {
	r.logging = logsapi.NewLoggingConfiguration()
	r.leader.AddFeatureGates(&r.gates)
	for _, g := range own {
		if g, ok := g.(featureGated); ok {
			g.AddFeatureGates(&r.gates)
		}
	}
	fs := command.Flags()
	app.AddAutomaxprocsFlag(fs)
	for _, g := range append([]group{&r.gates, &r.kube, &r.leader, &r.endpoint, &r.work}, own...) {
		g.AddFlags(fs)
	}
	logsapi.AddFlags(r.logging, fs)
	withVersion(command)
}

// declare also gives the role the flags for its driver.
func (s *sidecar) declare(command *cobra.Command, own ...group) {
	s.role.declare(command, append([]group{&s.driver}, own...)...)
}

// complete adds what the environment says, and checks what all roles have.
// Further variables and problems are the role's own.
func (r *role) complete(command *cobra.Command, further ...app.EnvVar) error {
	err := app.ApplyEnvironment(command.Flags(), append([]app.EnvVar{
		{Name: "RETRY_INTERVAL", Flags: []string{"retry-interval-start", "retry-interval-max"}},
		{Name: "KUBECONFIG", Flags: []string{"kubeconfig"}},
	}, further...)...)
	return errors.Join(err, r.leader.Validate(), r.endpoint.Validate())
}

func (s *sidecar) complete(command *cobra.Command, further ...app.EnvVar) error {
	return s.role.complete(command, append(further, app.EnvVar{Name: "CSI_ENDPOINT", Flags: []string{"csi-address"}})...)
}

// runs makes what a role's command does: complete its options, log as they say,
// and work.
func (r *role) runs(complete func(*cobra.Command) error, run func(context.Context) error) func(*cobra.Command, []string) error {
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
