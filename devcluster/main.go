// Command devcluster is a real Kubernetes in one program: etcd, the API
// server, the controller manager, the scheduler, kubectl and, as root, nodes
// with a real kubelet and container runtime.
//
// It is a multi-call program. Called under the name of a Kubernetes component
// or with that name as its first argument, it is that component; otherwise it
// is the tool that starts itself once per component.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast-io/holdfast/devcluster/internal/cli"
	"github.com/holdfast-io/holdfast/devcluster/internal/lifeline"
	"github.com/holdfast-io/holdfast/devcluster/internal/roles"
)

func main() {
	lifeline.Hold()
	if role, args, ok := roles.Select(os.Args); ok {
		_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(args[0])), 0) // For top and pgrep, which would say "exe".
		os.Exit(role(args))
	}
	if err := cli.New().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "devcluster:", err)
		os.Exit(cli.ExitCode(err))
	}
}
