package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/internal/crds"
)

func newCRDs() *cobra.Command {
	var groups []string
	command := &cobra.Command{
		Use:   "crds",
		Short: "Print the CustomResourceDefinitions that a cluster needs",
		Long: `Print the CustomResourceDefinitions that a cluster needs, as YAML to be applied
before the roles that work with snapshots are started, and again with every new
version:

  holdfast crds | kubectl apply --server-side -f -

Those that are there already are updated in place and no object is lost. Where
somebody else put other ones there, the API server names the conflicts; to take
them over, add --force-conflicts to what kubectl is told.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return crds.Write(command.OutOrStdout(), groups...)
		},
	}
	command.Flags().StringSliceVar(&groups, "group", nil,
		"print only what belongs to this API group, for clusters that come with the others; there are "+strings.Join(crds.Groups(), ", "))
	return command
}
