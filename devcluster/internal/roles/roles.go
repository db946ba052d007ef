// Package roles links the programs that devcluster can be.
package roles

import (
	"context"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"github.com/holdfast-io/holdfast/devcluster/internal/network"
	"github.com/holdfast-io/holdfast/devcluster/internal/node"
)

// A Role runs one program to its end and returns its exit code. args[0] is
// the program's own name.
type Role func(args []string) int

// Select returns the role that the command line names, by the name the
// program was called under or by its first argument, with the arguments that
// the role sees.
func Select(args []string) (Role, []string, bool) {
	table := table()
	if role, ok := table[filepath.Base(args[0])]; ok {
		return role, args, true
	}
	if len(args) < 2 {
		return nil, nil, false
	}
	role, ok := table[args[1]]
	return role, args[1:], ok
}

func table() map[string]Role {
	return map[string]Role{
		"etcd":                    etcd,
		"kube-apiserver":          component(apiserver.NewAPIServerCommand),
		"kube-controller-manager": component(controllermanager.NewControllerManagerCommand),
		"kube-scheduler":          component(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
		"kubelet":                 component(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
		"kube-proxy":              component(proxy.NewProxyCommand),
		"kubectl":                 component(kubectl.NewDefaultKubectlCommand),
		network.SwitchRole:        network.RunSwitch,
		node.InitRole:             node.RunInit,
		node.DebootstrapRole:      node.RunDebootstrap,
	}
}

func etcd(args []string) int {
	etcdmain.Main(args)
	return 0
}

// component adapts a Kubernetes command, which reads os.Args by itself.
func component(command func() *cobra.Command) Role {
	return func(args []string) int {
		os.Args = args
		return cli.Run(command())
	}
}
