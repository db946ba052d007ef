package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/app"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/node"
	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/kubelet"
	"github.com/holdfast-io/holdfast/internal/runtime/runc"
	"github.com/holdfast-io/holdfast/internal/store/s3"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// nodeAgent is the role node.
type nodeAgent struct {
	role
	level app.LogLevel
	agent node.Options

	engines   []string
	stateDir  string
	maxMemory string
	frozen    time.Duration

	freezeCopy bool
	kubelet    kubelet.Options
	kubeletDir string
	hostIP     string
	stores     node.Stores
	info       node.Info
}

func newNodeAgent() *cobra.Command {
	a := &nodeAgent{role: role{work: app.WorkerOptions{Workers: 4}}}
	command := &cobra.Command{
		Use:   "node",
		Short: "Make, store and delete the Checkpoints of the containers of one node",
		Long: `Make, store and delete the Checkpoints that the checkpoint-operator has assigned to this
node. It runs once on each node, as root, with the process IDs of the node (hostPID).

Flags override the environment variables in brackets, and these override the
defaults.`,
		Args: cobra.NoArgs,
		RunE: a.runE(a.complete, a.run),
	}
	a.declareNode(command)
	a.declareKubelet(command)
	a.declareS3(command)
	a.endpoint.AddBindFlags(command.Flags())
	a.declare(command, &a.level)
	command.AddCommand(newNodeInstall(), newNodeUninstall(), newNodeStatus())
	return command
}

func (a *nodeAgent) declareNode(command *cobra.Command) {
	fs := command.Flags()
	fs.StringVar(&a.agent.Node, "node-name", "", "name of the node [NODE_NAME]")
	fs.StringSliceVar(&a.engines, "engines", []string{runc.Name, kubelet.Name}, "engines that may be used, in the order of preference: runc, kubelet")
	fs.StringVar(&a.stateDir, "state-dir", "/var/lib/holdfast/node", "directory of the node for checkpoints that are not stored yet; it needs room for one of each container")
	fs.StringVar(&a.agent.LocalPath, "local-path", "/var/lib/holdfast/checkpoints", "directory of the node in which the backend local may keep checkpoints")
	fs.StringVar(&a.agent.RestoreDir, "restore-dir", ticket.DefaultDir, "directory of the node for the data of pods that are being restored; holdfast-runtime looks there")
	fs.StringVar(&a.maxMemory, "max-memory", "2Gi", "RAM of the node that checkpoints which are not stored yet, and memory that is being restored, may take; 0 keeps both on disk, which freezes containers for longer")
	fs.BoolVar(&a.freezeCopy, "freeze-copy", false, "copy memory beside CRIU (step FreezeCopy) instead of having CRIU write it into RAM (step Tmpfs); which one is faster depends on the node")
	fs.DurationVar(&a.frozen, "max-frozen-time", runc.DefaultTimeout, "for how long a container may be frozen, unless its Checkpoint or its liveness probe permits less")
	fs.Int32Var(&a.agent.Attempts, "attempts", 3, "how often a checkpoint is attempted")
	fs.DurationVar(&a.agent.UploadDeadline, "upload-deadline", time.Hour, "how long a checkpoint is kept on the node while its store cannot be used")
	fs.DurationVar(&a.agent.OrphanInterval, "orphan-interval", time.Hour, "how often the agent looks for stored data that belong to no Checkpoint; 0 for never")
	fs.DurationVar(&a.agent.ProbeInterval, "probe-interval", time.Minute, "how often the agent finds out what the node can do")
}

// declareS3 declares what S3 endpoints may be. The agent's own credentials come from the
// environment variables of AWS.
func (a *nodeAgent) declareS3(command *cobra.Command) {
	fs := command.Flags()
	fs.StringSliceVar(&a.stores.Egress.AllowEndpoints, "allow-s3-endpoint", nil, "hosts, addresses or networks that S3 endpoints may be although they are those of the node or reserved")
	fs.StringSliceVar(&a.stores.OwnCredentialsFor, "own-credentials-for", nil, "S3 endpoints for which Checkpoints without credentials use those of the agent (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN)")
	a.stores.OwnCredentials = s3.Credentials{
		AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: os.Getenv("AWS_SESSION_TOKEN"),
	}
}

func (a *nodeAgent) declareKubelet(command *cobra.Command) {
	fs := command.Flags()
	fs.StringVar(&a.kubelet.Address, "kubelet-address", "", "address of the node's kubelet; empty for port 10250 of the node [HOST_IP]")
	fs.StringVar(&a.kubelet.CAFile, "kubelet-ca-file", "", "certificates that the kubelet's is verified with; empty to trust the one that is seen first")
	fs.BoolVar(&a.kubelet.Insecure, "kubelet-insecure-tls", false, "accept every certificate of the kubelet")
	fs.StringVar(&a.kubelet.Root, "host-root", "/", "where the node's file system is mounted")
	fs.StringVar(&a.kubeletDir, "kubelet-dir", "/var/lib/kubelet", "the kubelet's directory of the node, in which the volumes of pods are mounted")
	fs.StringVar(&a.kubelet.CheckpointDir, "kubelet-checkpoint-dir", "/var/lib/kubelet/checkpoints", "directory of the node in which the kubelet writes checkpoints")
	fs.StringVar(&a.hostIP, "host-ip", "", "address of the node [HOST_IP]")
}

func (a *nodeAgent) complete(command *cobra.Command) error {
	err := a.role.complete(command,
		app.EnvVar{Name: "LOG_LEVEL", Flags: []string{"log-level"}},
		app.EnvVar{Name: "NODE_NAME", Flags: []string{"node-name"}},
		app.EnvVar{Name: "HOST_IP", Flags: []string{"host-ip"}},
		app.EnvVar{Name: "METRICS_PORT", Flags: []string{"metrics-bind-address"}},
		app.EnvVar{Name: "HEALTH_PROBE_PORT", Flags: []string{"health-probe-bind-address"}},
	)
	a.stores.KubeletDir = filepath.Join(a.kubelet.Root, a.kubeletDir)
	o := &a.agent
	o.Namespace, o.HostRoot, o.KubeletDir = app.Namespace(""), a.kubelet.Root, a.kubeletDir
	// The parent of a container's first process is the runtime's shim, which is in the namespaces
	// of the node.
	o.HostPID = os.Getppid()
	o.Workers, o.RetryStart, o.RetryMax = a.work.Workers, a.work.RetryStart, a.work.RetryMax
	var problem error
	if o.Engines, problem = a.newEngines(); problem != nil {
		err = errors.Join(err, problem)
	}
	return errors.Join(err, o.Validate(), a.stores.Egress.Validate(), a.level.SetVerbosity(command.Flags()))
}

// newEngines returns the engines in the order of preference.
func (a *nodeAgent) newEngines() ([]runtime.Engine, error) {
	var all []runtime.Engine
	for _, name := range a.engines {
		engine, err := a.newEngine(name)
		if err != nil {
			return nil, err
		}
		all = append(all, engine)
	}
	if len(all) == 0 {
		return nil, errors.New("--engines is empty: name at least one of runc and kubelet")
	}
	return all, nil
}

func (a *nodeAgent) newEngine(name string) (runtime.Engine, error) {
	switch name {
	case runc.Name:
		memory, err := resource.ParseQuantity(a.maxMemory)
		if err != nil {
			return nil, fmt.Errorf("--max-memory %q: %w", a.maxMemory, err)
		}
		bytes, err := kube.Bytes(memory)
		if err != nil {
			return nil, fmt.Errorf("--max-memory: %w", err)
		}
		return runc.New(runc.Config{
			StateDir: filepath.Join(a.stateDir, name), HostPID: a.agent.HostPID, WorkerArgs: []string{workerCommand},
			Timeout: a.frozen, MaxMemory: bytes, WithoutFreezeCopy: !a.freezeCopy,
		})
	case kubelet.Name:
		o := a.kubelet
		if o.Address == "" {
			o.Address = net.JoinHostPort(a.hostIP, "10250")
		}
		o.StateDir, o.Runtime = filepath.Join(a.stateDir, name), a.info.Runtime
		return kubelet.New(o)
	default:
		return nil, fmt.Errorf("--engines has %q; known are runc and kubelet", name)
	}
}

func (a *nodeAgent) run(ctx context.Context) error {
	ctx = ctrl.LoggerInto(ctx, app.SetLogger(a.level.Filter))
	config, err := a.kube.Config()
	if err != nil {
		return err
	}
	lock, err := node.Lock(ctx, a.stateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := kube.WaitForResources(ctx, config, node.Resources, 30*time.Second); err != nil {
		return fmt.Errorf("waiting for the checkpoint API: %w", err)
	}
	a.agent.Info, a.stores.Egress.Denied = &a.info, apiServer(config)
	program := app.Program{
		Kube: a.kube, Scheme: v1alpha1.AddToScheme, Endpoint: a.endpoint, Component: "checkpoint-agent", MaxGarbage: node.MaxGarbage,
		Cache: func(into *cache.Options) { node.CacheOptions(&a.agent, into) },
		Setup: func(ctx context.Context, m ctrl.Manager, events *kube.Events) error {
			if err := node.Setup(ctx, m, events, a.stores, &a.agent); err != nil {
				return fmt.Errorf("setting up the agent: %w", err)
			}
			return nil
		},
	}
	return program.Run(ctx)
}

// apiServer returns the addresses of the API server. They are no S3 endpoints: the agent
// must not be a way to them.
func apiServer(config *rest.Config) []netip.Prefix {
	var all []netip.Prefix
	hosts := []string{os.Getenv("KUBERNETES_SERVICE_HOST")}
	if u, err := url.Parse(config.Host); err == nil {
		hosts = append(hosts, u.Hostname())
	}
	for _, host := range hosts {
		if address, err := netip.ParseAddr(host); err == nil {
			all = append(all, netip.PrefixFrom(address, address.BitLen()))
		}
	}
	return all
}

// workerCommand is the hidden command that makes one checkpoint, in the namespaces of the
// node.
const workerCommand = "checkpoint-worker"

func newCheckpointWorker() *cobra.Command {
	return &cobra.Command{
		Use: workerCommand, Hidden: true, DisableFlagParsing: true,
		Run: func(_ *cobra.Command, args []string) { os.Exit(runc.Main(args)) },
	}
}
