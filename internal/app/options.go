// Package app is what every role of the program is made of: options from the
// command line and the environment, logging, the connection to the driver, the
// controllers with their caches and leader election, and the HTTP endpoint.
//
// Flags are declared here once, in groups that a role picks from. What a group
// holds when its flags are declared comes before the group's own defaults: roles
// differ in some.
package app

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/leaderelection"
)

// DriverOptions says where the CSI driver is.
type DriverOptions struct {
	Address string
	Timeout time.Duration
	// NodePart is for roles that stand on a node; see csi.Options.
	NodePart bool
}

// AddFlags declares the group's flags.
func (o *DriverOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Address, "csi-address", cmp.Or(o.Address, "/run/csi/socket"), "socket of the CSI driver: a path or a unix:// URL [CSI_ENDPOINT]")
	fs.DurationVar(&o.Timeout, "timeout", cmp.Or(o.Timeout, 10*time.Second), "time for one call to the CSI driver")
}

// KubeOptions says how to reach the API server.
type KubeOptions struct {
	Master     string
	Kubeconfig string
	QPS        float32
	Burst      int
}

// AddFlags declares the group's flags.
func (o *KubeOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Master, "master", "", "URL of the API server, if it is not the one of the kubeconfig file or the cluster")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file; empty inside a cluster [KUBECONFIG]")
	fs.Float32Var(&o.QPS, "kube-api-qps", 0, "limit of requests a second to the API server; 0 leaves it to the server's own fairness")
	fs.IntVar(&o.Burst, "kube-api-burst", 0, "how many requests may exceed --kube-api-qps for a moment")
}

// LeaderElectionOptions says how replicas agree on which of them acts.
type LeaderElectionOptions struct {
	Enabled                                   bool
	Namespace                                 string
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
	Labels                                    map[string]string
	// Release is whether the Lease is given back when it is needed no more.
	Release bool
}

// AddFlags declares the group's flags.
func (o *LeaderElectionOptions) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.Enabled, "leader-election", o.Enabled, "let only one of several replicas act")
	fs.StringVar(&o.Namespace, "leader-election-namespace", o.Namespace,
		"namespace of the Lease, and of what this program keeps on record; empty for its own [POD_NAMESPACE]")
	fs.DurationVar(&o.LeaseDuration, "leader-election-lease-duration", 15*time.Second, "how long a silent leader stays leader; above the renew deadline")
	fs.DurationVar(&o.RenewDeadline, "leader-election-renew-deadline", 10*time.Second, "how long a leader tries to stay leader; above the retry period")
	fs.DurationVar(&o.RetryPeriod, "leader-election-retry-period", cmp.Or(o.RetryPeriod, 5*time.Second), "pause between two tries to be, or stay, leader")
	fs.Var(labels{&o.Labels}, "leader-election-labels", "labels to put on the Lease: key:value,key:value")
}

// AddFeatureGates declares the group's feature gates.
func (o *LeaderElectionOptions) AddFeatureGates(g *FeatureGates) {
	g.Add("ReleaseLeaderElectionOnExit", &o.Release, "give the Lease back on exit, so that another replica takes over at once")
}

// Validate tells all that is wrong at once.
func (o *LeaderElectionOptions) Validate() error {
	if !o.Enabled {
		return nil
	}
	var errs []error
	if o.LeaseDuration <= o.RenewDeadline {
		errs = append(errs, fmt.Errorf("--leader-election-lease-duration %s must be above --leader-election-renew-deadline %s", o.LeaseDuration, o.RenewDeadline))
	}
	if longest := time.Duration(leaderelection.JitterFactor * float64(o.RetryPeriod)); o.RenewDeadline <= longest {
		errs = append(errs, fmt.Errorf("--leader-election-renew-deadline %s must be above %s, the longest pause that --leader-election-retry-period %s leads to",
			o.RenewDeadline, longest, o.RetryPeriod))
	}
	if o.RetryPeriod <= 0 {
		errs = append(errs, fmt.Errorf("--leader-election-retry-period %s must be positive", o.RetryPeriod))
	}
	return errors.Join(errs...)
}

// EndpointOptions says where metrics, health and profiles are served.
type EndpointOptions struct {
	Address     string
	MetricsPath string
	Profiles    bool

	oldAddress                    string
	metricsAddress, healthAddress string
}

// AddFlags declares the group's flags.
func (o *EndpointOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Address, "http-endpoint", "", "address of metrics and health, such as :8080; empty for none")
	fs.StringVar(&o.oldAddress, "metrics-address", "", "the same as --http-endpoint")
	deprecate(fs, "metrics-address", "use --http-endpoint")
	fs.StringVar(&o.MetricsPath, "metrics-path", "/metrics", "path of the metrics")
	fs.BoolVar(&o.Profiles, "enable-pprof", false, "serve profiles of this program under /debug/pprof/ at --http-endpoint")
}

// AddSplitFlags declares addresses of their own for metrics and health, for roles
// whose manifests have them. All is served at both.
func (o *EndpointOptions) AddSplitFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.metricsAddress, "metrics-addr", ":8080", "address of metrics; empty for none")
	fs.StringVar(&o.healthAddress, "health-addr", ":9808", "address of health; empty for none")
}

// Validate tells all that is wrong at once.
func (o *EndpointOptions) Validate() error {
	var errs []error
	if o.Address != "" && o.oldAddress != "" {
		errs = append(errs, errors.New("--metrics-address and --http-endpoint are the same: give one of them"))
	}
	if !strings.HasPrefix(o.MetricsPath, "/") {
		errs = append(errs, fmt.Errorf("--metrics-path %q must begin with /", o.MetricsPath))
	}
	if o.Profiles && len(o.addresses()) == 0 {
		errs = append(errs, errors.New("--enable-pprof needs --http-endpoint: profiles are served there"))
	}
	return errors.Join(errs...)
}

// addresses are where everything is served.
func (o *EndpointOptions) addresses() []string {
	all := []string{cmp.Or(o.Address, o.oldAddress), o.metricsAddress, o.healthAddress}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(address string) bool { return address == "" })
}

// deprecate hides a flag that is only there for old manifests.
func deprecate(fs *pflag.FlagSet, name, instead string) {
	if err := fs.MarkDeprecated(name, instead); err != nil {
		panic(err) // The flag is declared one line above.
	}
}

// WorkerOptions says how much is done at a time, and how soon again.
type WorkerOptions struct {
	// Flag is the name of the flag for Workers; worker-threads if empty.
	Flag string
	// Workers is the default, 100 if 0, until flags are parsed.
	Workers              int
	RetryStart, RetryMax time.Duration
}

// AddFlags declares the group's flags.
func (o *WorkerOptions) AddFlags(fs *pflag.FlagSet) {
	o.RetryStart, o.RetryMax = time.Second, 300*time.Second
	fs.IntVar(&o.Workers, cmp.Or(o.Flag, "worker-threads"), cmp.Or(o.Workers, 100), "how many objects of a kind are worked on at a time")
	fs.Var(seconds{&o.RetryStart}, "retry-interval-start", "pause before the first retry of a failed operation; it doubles each time [RETRY_INTERVAL]")
	fs.Var(seconds{&o.RetryMax}, "retry-interval-max", "longest pause between two retries [RETRY_INTERVAL]")
}
