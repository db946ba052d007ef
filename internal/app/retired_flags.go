package app

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/pflag"
	logsapi "k8s.io/component-base/logs/api/v1"
)

// A RetiredFlag is a flag that an older release of a replaced program had. Manifests
// still have it, so it is accepted. It has no effect, and whoever uses it is told why.
type RetiredFlag struct {
	Name string
	// Bool is whether the flag needs no value.
	Bool bool
	// Why says what happens without the flag, as the end of "Flag --name has been
	// deprecated, …".
	Why string
}

// AddRetiredFlags declares flags that have no effect.
func AddRetiredFlags(fs *pflag.FlagSet, flags ...RetiredFlag) {
	for _, f := range flags {
		if f.Bool {
			fs.Bool(f.Name, false, "")
		} else {
			fs.String(f.Name, "", "")
		}
		deprecate(fs, f.Name, f.Why)
	}
}

// klogFlags were flags of all sidecars until Kubernetes removed them from its own
// programs (KEP-2845).
var klogFlags = []RetiredFlag{
	{Name: "logtostderr", Bool: true}, {Name: "alsologtostderr", Bool: true}, {Name: "stderrthreshold"},
	{Name: "log_dir"}, {Name: "log_file"}, {Name: "log_file_max_size"}, {Name: "log_backtrace_at"},
	{Name: "skip_headers", Bool: true}, {Name: "skip_log_headers", Bool: true},
	{Name: "add_dir_header", Bool: true}, {Name: "one_output", Bool: true},
}

// AddLoggingFlags declares the flags of the log, with those that klog once had.
func AddLoggingFlags(c *logsapi.LoggingConfiguration, fs *pflag.FlagSet) {
	logsapi.AddFlags(c, fs)
	for _, f := range klogFlags {
		f.Why = "the log goes to standard error, in the format of --logging-format"
		AddRetiredFlags(fs, f)
	}
}

// AddAlias declares another name of a flag that is declared already. Setting the alias
// is the same as setting the flag on the command line.
func AddAlias(fs *pflag.FlagSet, alias, name string) {
	flag := fs.Lookup(name)
	value := &setterValue{kind: flag.Value.Type(), set: func(text string) error { return fs.Set(name, text) }}
	fs.VarPF(value, alias, "", "").NoOptDefVal = flag.NoOptDefVal
	deprecate(fs, alias, "use --"+name)
}

// AddGateAlias declares a flag of an older release that is a feature gate today.
func AddGateAlias(fs *pflag.FlagSet, alias, gate string) {
	value := &setterValue{kind: "bool", set: func(text string) error { return fs.Set("feature-gates", gate+"="+text) }}
	fs.VarPF(value, alias, "", "").NoOptDefVal = "true"
	deprecate(fs, alias, "use --feature-gates="+gate+"=true or false")
}

// AddRefusedFlag declares a boolean flag of an older release that must not be true: what
// it did would cost data.
func AddRefusedFlag(fs *pflag.FlagSet, name, why string) {
	value := &setterValue{kind: "bool", set: func(text string) error {
		if on, err := strconv.ParseBool(text); err != nil || on {
			return errors.Join(err, errors.New(why))
		}
		return nil
	}}
	fs.VarPF(value, name, "", "").NoOptDefVal = "true"
	deprecate(fs, name, "remove it")
}

// AddCapacityModeFlag declares the flag that external-provisioner 2.0 had in the place
// of --enable-capacity.
func AddCapacityModeFlag(fs *pflag.FlagSet) {
	value := &setterValue{kind: "string", set: func(mode string) error {
		switch mode {
		case "central":
			return fs.Set("enable-capacity", "true")
		case "none", "":
			return nil
		default:
			return fmt.Errorf("mode %q is not known: use --enable-capacity, and with a csi-provisioner on each node --node-deployment", mode)
		}
	}}
	fs.VarPF(value, "capacity-controller-deployment-mode", "", "")
	deprecate(fs, "capacity-controller-deployment-mode", "use --enable-capacity")
}

// setterValue is a flag value that sets something else.
type setterValue struct {
	kind string
	set  func(string) error
	text string
}

// Set sets the other thing.
func (s *setterValue) Set(text string) error {
	s.text = text
	return s.set(text)
}

// String returns what was set last.
func (s *setterValue) String() string { return s.text }

// Type returns the type that the help text shows.
func (s *setterValue) Type() string { return s.kind }
