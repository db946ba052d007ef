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

// sidecar is what all roles have in common that stand beside a driver.
type sidecar struct {
	driver   app.Driver
	kube     app.Kube
	leader   app.Leader
	gates    app.Gates
	endpoint app.Endpoint
	work     app.Work
	logging  *logsapi.LoggingConfiguration
}

// A group of options that a role has beside those.
type group interface{ AddFlags(fs *pflag.FlagSet) }

// A gated group also has feature gates.
type gated interface {
	AddGates(g interface {
		Add(name string, to *bool, usage string)
	})
}

// declare gives a role its flags: those of all, and those of its own groups.
// What the sidecar holds already are the role's defaults.
func (s *sidecar) declare(command *cobra.Command, own ...group) {
	s.logging = logsapi.NewLoggingConfiguration()
	s.leader.AddGates(&s.gates)
	for _, g := range own {
		if g, ok := g.(gated); ok {
			g.AddGates(&s.gates)
		}
	}
	fs := command.Flags()
	app.AddProcessorFlag(fs)
	for _, g := range append([]group{&s.gates, &s.driver, &s.kube, &s.leader, &s.endpoint, &s.work}, own...) {
		g.AddFlags(fs)
	}
	logsapi.AddFlags(s.logging, fs)
	withVersion(command)
}

// complete adds what the environment says, and checks what all roles have.
// Further variables and problems are the role's own.
func (s *sidecar) complete(command *cobra.Command, further ...app.Variable) error {
	err := app.FromEnvironment(command.Flags(), append([]app.Variable{
		{Name: "CSI_ENDPOINT", Flags: []string{"csi-address"}},
		{Name: "RETRY_INTERVAL", Flags: []string{"retry-interval-start", "retry-interval-max"}},
		{Name: "KUBECONFIG", Flags: []string{"kubeconfig"}},
	}, further...)...)
	return errors.Join(err, s.leader.Validate(), s.endpoint.Validate())
}

// runs makes what a role's command does: complete its options, log as they say,
// and work.
func (s *sidecar) runs(complete func(*cobra.Command) error, run func(context.Context) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, _ []string) error {
		if err := complete(command); err != nil {
			return err
		}
		if err := logsapi.ValidateAndApply(s.logging, nil); err != nil {
			return err
		}
		return run(command.Context())
	}
}
