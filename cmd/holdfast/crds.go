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
before the roles for snapshots are started, and again with every new version:

  holdfast crds | kubectl apply --server-side -f -

Existing definitions are updated in place, and no object is lost. If another field
manager owns a definition, the API server reports conflicts. To overwrite its
fields, add --force-conflicts to the kubectl command.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return crds.Write(command.OutOrStdout(), groups...)
		},
	}
	command.Flags().StringSliceVar(&groups, "group", nil,
		"print only the definitions of this API group, for clusters that have the others already; one of "+strings.Join(crds.Groups(), ", "))
	return command
}
