// Package app has what all roles of the program share: options from the command
// line and the environment, logging, the connection to the driver, the manager of
// the controllers with leader election, and the HTTP endpoint.
//
// Flags are declared here once, in groups that a role picks from. Values that a
// group has before AddFlags are the role's defaults and override the group's.
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

// DriverOptions are the options of the connection to the CSI driver.
type DriverOptions struct {
	Address string
	Timeout time.Duration
	// NodePart is set by roles that run on a node; see csi.Options.
	NodePart bool
	// Limits of concurrent calls; see csi.Options.
	MinCalls, MaxCalls int
}

// AddFlags declares the group's flags.
func (o *DriverOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Address, "csi-address", cmp.Or(o.Address, "/run/csi/socket"), "socket of the CSI driver: a path or a unix:// URL [CSI_ENDPOINT]")
	fs.DurationVar(&o.Timeout, "timeout", cmp.Or(o.Timeout, 10*time.Second), "timeout of one call to the CSI driver")
}

// AddLimitFlags declares the bounds of concurrent calls, for roles that send calls for
// many objects.
func (o *DriverOptions) AddLimitFlags(fs *pflag.FlagSet) {
	fs.IntVar(&o.MinCalls, "min-concurrent-calls", 0, "lowest limit of concurrent calls of one method, or about one node, class or source, after calls timed out; 0 for a tenth of the workers")
	fs.IntVar(&o.MaxCalls, "max-concurrent-calls", 0, "maximum of concurrent calls of one method; 0 for no maximum but the workers")
}

// CompleteLimits derives the bounds that are not set and validates them.
func (o *DriverOptions) CompleteLimits(workers int) error {
	switch {
	case o.MinCalls < 0:
		return fmt.Errorf("--min-concurrent-calls %d must not be negative", o.MinCalls)
	case o.MaxCalls < 0:
		return fmt.Errorf("--max-concurrent-calls %d must not be negative", o.MaxCalls)
	case o.MaxCalls > 0 && o.MinCalls > o.MaxCalls:
		return fmt.Errorf("--min-concurrent-calls %d must not be above --max-concurrent-calls %d", o.MinCalls, o.MaxCalls)
	}
	if o.MinCalls == 0 {
		o.MinCalls = max(1, workers/10)
	}
	if o.MaxCalls > 0 {
		o.MinCalls = min(o.MinCalls, o.MaxCalls)
	}
	return nil
}

// KubeOptions are the options of the API server's clients.
type KubeOptions struct {
	Master     string
	Kubeconfig string
	QPS        float32
	Burst      int
}

// AddFlags declares the group's flags.
func (o *KubeOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Master, "master", "", "URL of the API server; overrides the kubeconfig file and the in-cluster configuration")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file; empty for the in-cluster configuration [KUBECONFIG]")
	fs.Float32Var(&o.QPS, "kube-api-qps", 0, "maximum requests per second to the API server; 0 for no limit (API Priority and Fairness protects the server)")
	fs.IntVar(&o.Burst, "kube-api-burst", 0, "how many requests may exceed --kube-api-qps in a burst")
}

// LeaderElectionOptions are the options of leader election.
type LeaderElectionOptions struct {
	Enabled                                   bool
	Namespace                                 string
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
	Labels                                    map[string]string
	// Release is whether the Lease is released when the program ends.
	Release bool

	enabledFlag, namespaceFlag *pflag.Flag
}

// AddFlags declares the group's flags.
func (o *LeaderElectionOptions) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.Enabled, "leader-election", o.Enabled, "elect a leader among the replicas; only the leader works")
	fs.StringVar(&o.Namespace, "leader-election-namespace", o.Namespace,
		"namespace of the Lease and of this program's own records; empty for the pod's namespace [POD_NAMESPACE]")
	o.enabledFlag, o.namespaceFlag = fs.Lookup("leader-election"), fs.Lookup("leader-election-namespace")
	fs.DurationVar(&o.LeaseDuration, "leader-election-lease-duration", 15*time.Second, "how long other replicas wait after the last renewal before they take over; must be above the renew deadline")
	fs.DurationVar(&o.RenewDeadline, "leader-election-renew-deadline", 10*time.Second, "how long the leader tries to renew the Lease before it steps down; must be above 1.2 times the retry period")
	fs.DurationVar(&o.RetryPeriod, "leader-election-retry-period", cmp.Or(o.RetryPeriod, 5*time.Second), "pause between two attempts to acquire or renew the Lease")
	fs.Var(labelsValue{&o.Labels}, "leader-election-labels", "labels of the Lease: key:value,key:value")
}

// AddFeatureGates declares the group's feature gates.
func (o *LeaderElectionOptions) AddFeatureGates(g *FeatureGates) {
	g.Add("ReleaseLeaderElectionOnExit", &o.Release, "release the Lease on exit, so that another replica takes over at once")
}

// Validate returns all errors at once.
func (o *LeaderElectionOptions) Validate() error {
	if !o.Enabled {
		return nil
	}
	var errs []error
	if o.LeaseDuration <= o.RenewDeadline {
		errs = append(errs, fmt.Errorf("--leader-election-lease-duration %s must be above --leader-election-renew-deadline %s", o.LeaseDuration, o.RenewDeadline))
	}
	if longest := time.Duration(leaderelection.JitterFactor * float64(o.RetryPeriod)); o.RenewDeadline <= longest {
		errs = append(errs, fmt.Errorf("--leader-election-renew-deadline %s must be above %s, the longest pause that --leader-election-retry-period %s causes",
			o.RenewDeadline, longest, o.RetryPeriod))
	}
	if o.RetryPeriod <= 0 {
		errs = append(errs, fmt.Errorf("--leader-election-retry-period %s must be positive", o.RetryPeriod))
	}
	return errors.Join(errs...)
}

// EndpointOptions are the options of the HTTP endpoint for metrics, health and
// profiles.
type EndpointOptions struct {
	Address     string
	MetricsPath string
	Profiles    bool

	deprecatedAddress string
	// split are the flags of separate addresses for metrics and health.
	split []*pflag.Flag
}

// AddFlags declares the group's flags.
func (o *EndpointOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Address, "http-endpoint", "", "address of metrics and health, such as :8080; empty for none")
	fs.StringVar(&o.deprecatedAddress, "metrics-address", "", "the same as --http-endpoint")
	deprecate(fs, "metrics-address", "use --http-endpoint")
	fs.StringVar(&o.MetricsPath, "metrics-path", "/metrics", "HTTP path of the metrics")
	fs.BoolVar(&o.Profiles, "enable-pprof", false, "serve Go profiles under /debug/pprof/ at --http-endpoint")
}

// AddSplitFlags declares separate addresses for metrics and health. Both addresses serve
// everything. Their defaults are only opened without --http-endpoint, after other containers
// of the pod had time to open them, and are done without if one did: in manifests of
// upstream's program nobody has asked for them, and livenessprobe has the same port.
func (o *EndpointOptions) AddSplitFlags(fs *pflag.FlagSet) {
	fs.String("metrics-addr", ":8080", "address of metrics; empty for none")
	fs.String("health-addr", ":9808", "address of health; empty for none")
	o.split = []*pflag.Flag{fs.Lookup("metrics-addr"), fs.Lookup("health-addr")}
}

// AddBindFlags declares the same with the names that managers built with kubebuilder have.
func (o *EndpointOptions) AddBindFlags(fs *pflag.FlagSet) {
	metrics, health := ":8080", ":8081"
	fs.Var(addressValue{&metrics}, "metrics-bind-address", "address or port of metrics; 0 for none [METRICS_PORT]")
	fs.Var(addressValue{&health}, "health-probe-bind-address", "address or port of health; 0 for none [HEALTH_PROBE_PORT]")
	o.split = []*pflag.Flag{fs.Lookup("metrics-bind-address"), fs.Lookup("health-probe-bind-address")}
}

// Validate returns all errors at once.
func (o *EndpointOptions) Validate() error {
	var errs []error
	if o.Address != "" && o.deprecatedAddress != "" {
		errs = append(errs, errors.New("--metrics-address and --http-endpoint are the same option: set only one of them"))
	}
	if !strings.HasPrefix(o.MetricsPath, "/") {
		errs = append(errs, fmt.Errorf("--metrics-path %q must begin with /", o.MetricsPath))
	}
	if o.Profiles && len(o.addresses()) == 0 {
		errs = append(errs, errors.New("--enable-pprof needs --http-endpoint: profiles are served there"))
	}
	return errors.Join(errs...)
}

// An address is one to listen on.
type address struct {
	value string
	// optional is whether nobody has asked for it: it is a default.
	optional bool
}

// addresses returns the addresses to listen on, without duplicates.
func (o *EndpointOptions) addresses() []address {
	var all []address
	add := func(value string, optional bool) {
		known := slices.ContainsFunc(all, func(a address) bool { return a.value == value })
		if value != "" && !known {
			all = append(all, address{value: value, optional: optional})
		}
	}
	only := cmp.Or(o.Address, o.deprecatedAddress)
	add(only, false)
	for _, flag := range o.split {
		if isAsked(flag) {
			add(flag.Value.String(), false)
		}
	}
	for _, flag := range o.split {
		if !isAsked(flag) && only == "" {
			add(flag.Value.String(), true)
		}
	}
	return all
}

// isAsked reports whether the command line or the environment has set a flag. Options
// without flags are those of a program's own code, which asks for them.
func isAsked(flag *pflag.Flag) bool {
	return flag == nil || flag.Changed || flag.Value.String() != flag.DefValue
}

// deprecate hides a flag that exists only for existing manifests.
func deprecate(fs *pflag.FlagSet, name, message string) {
	if err := fs.MarkDeprecated(name, message); err != nil {
		panic(err) // The flag is declared one line above.
	}
}

// WorkerOptions are the options of the controllers' workers and retries.
type WorkerOptions struct {
	// Flag is the name of the flag for Workers; empty for worker-threads.
	Flag string
	// Workers is the default before AddFlags; 0 for 100.
	Workers              int
	RetryStart, RetryMax time.Duration
}

// AddFlags declares the group's flags.
func (o *WorkerOptions) AddFlags(fs *pflag.FlagSet) {
	o.RetryStart, o.RetryMax = time.Second, 300*time.Second
	fs.IntVar(&o.Workers, cmp.Or(o.Flag, "worker-threads"), cmp.Or(o.Workers, 100), "how many objects of a kind are reconciled concurrently")
	fs.Var(secondsValue{&o.RetryStart}, "retry-interval-start", "pause before the first retry of a failed operation; it doubles with each failure [RETRY_INTERVAL]")
	fs.Var(secondsValue{&o.RetryMax}, "retry-interval-max", "maximum pause between two retries [RETRY_INTERVAL]")
}
