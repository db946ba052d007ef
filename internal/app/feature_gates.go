package app

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// FeatureGates are what a role does unless it is told not to, under the names and in
// the form of Kubernetes' feature gates: --feature-gates=Topology=true,…
//
// Kubernetes' own implementation is not used: here is nothing that is alpha,
// locked or counted, and an unknown name shall be told what is known.
type FeatureGates struct{ known []featureGate }

// ofLogging are the gates of Kubernetes' library for logging, which the replaced
// programs have too. They are about flags for log lines; those that are here need
// none of them, and a manifest that sets one works as it is.
var ofLogging = []string{"ContextualLogging", "LoggingAlphaOptions", "LoggingBetaOptions"}

type featureGate struct {
	name, usage string
	to          *bool
}

// Add declares a gate. It is on by default.
func (g *FeatureGates) Add(name string, to *bool, usage string) {
	*to = true
	g.known = append(g.known, featureGate{name: name, usage: usage, to: to})
}

// AddFlags declares the flag for the gates that were added before.
func (g *FeatureGates) AddFlags(fs *pflag.FlagSet) {
	usage := []string{"what to do, or with =false not to do:"}
	for _, one := range g.known {
		usage = append(usage, one.name+"=true|false: "+one.usage)
	}
	fs.Var(g, "feature-gates", strings.Join(usage, "\n"))
}

// Set reads Name=true,Name=false. Gates that are not named stay as they are.
func (g *FeatureGates) Set(text string) error {
	var errs []error
	for _, pair := range strings.Split(text, ",") {
		if pair = strings.TrimSpace(pair); pair != "" {
			errs = append(errs, g.set(pair))
		}
	}
	return errors.Join(errs...)
}

func (g *FeatureGates) set(pair string) error {
	name, value, ok := strings.Cut(pair, "=")
	name = strings.TrimSpace(name)
	on, err := strconv.ParseBool(strings.TrimSpace(value))
	if !ok || err != nil {
		return fmt.Errorf("%q is not of the form NAME=true or NAME=false", pair)
	}
	if slices.Contains(ofLogging, name) {
		return nil
	}
	i := slices.IndexFunc(g.known, func(k featureGate) bool { return k.name == name })
	if i < 0 {
		return fmt.Errorf("there is no gate %q; there are %s", name, strings.Join(g.names(), ", "))
	}
	*g.known[i].to = on
	return nil
}

func (g *FeatureGates) names() []string {
	var names []string
	for _, k := range g.known {
		names = append(names, k.name)
	}
	return names
}

// String is the value as it can be set.
func (g *FeatureGates) String() string {
	var pairs []string
	for _, k := range g.known {
		pairs = append(pairs, k.name+"="+strconv.FormatBool(*k.to))
	}
	return strings.Join(pairs, ",")
}

// Type is what the help text calls the value.
func (g *FeatureGates) Type() string { return "gates" }
