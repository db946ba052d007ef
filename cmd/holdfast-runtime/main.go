// Command holdfast-runtime stands in the place of an OCI runtime, runc or crun. It restores
// the containers for which the agent of the node has issued a ticket, and passes everything
// else on to the real runtime.
package main

import (
	"os"

	"github.com/holdfast-io/holdfast/internal/wrapper"
)

func main() { os.Exit(wrapper.Main(os.Args)) }
