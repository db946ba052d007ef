package main

import (
	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/internal/checkpoint/volume"
)

// newHold is the hidden command of the pods that mount the volumes of Checkpoints.
func newHold() *cobra.Command {
	return &cobra.Command{
		Use: volume.HoldCommand, Hidden: true, Args: cobra.NoArgs,
		Run: func(command *cobra.Command, _ []string) { <-command.Context().Done() },
	}
}
