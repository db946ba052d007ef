package app

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

// FeatureGates is the value of --feature-gates, in the form of Kubernetes:
// --feature-gates=Topology=true,…
//
// The implementation of k8s.io/component-base is not used: these gates have no
// maturity levels, locks or metrics, and the error for an unknown name lists the
// known ones.
type FeatureGates struct {
	gates    []featureGate
	alwaysOn map[string]string
}

// loggingGates are the gates of k8s.io/component-base/logs. Upstream's sidecars
// accept them, so existing manifests may set them. They have no effect here: no
// logging flag of this program needs one.
var loggingGates = []string{"ContextualLogging", "LoggingAlphaOptions", "LoggingBetaOptions"}

type featureGate struct {
	name, usage string
	enabled     *bool
}

// Add declares a gate and enables it by default.
func (g *FeatureGates) Add(name string, enabled *bool, usage string) {
	*enabled = true
	g.gates = append(g.gates, featureGate{name: name, usage: usage, enabled: enabled})
}

// AddAlwaysOn declares a gate that upstream's program had until it was on for good. It may
// be set to true. If it may not be false, refusal says why and what to do instead; with an
// empty refusal false has no effect.
func (g *FeatureGates) AddAlwaysOn(name, refusal string) {
	if g.alwaysOn == nil {
		g.alwaysOn = map[string]string{}
	}
	g.alwaysOn[name] = refusal
}

// AddFlags declares the flag. All gates must have been added before.
func (g *FeatureGates) AddFlags(fs *pflag.FlagSet) {
	usage := []string{"features to enable or disable; all are enabled by default:"}
	for _, gate := range g.gates {
		usage = append(usage, gate.name+"=true|false: "+gate.usage)
	}
	fs.Var(g, "feature-gates", strings.Join(usage, "\n"))
}

// Set parses Name=true,Name=false. Other gates keep their values.
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
	enabled, err := strconv.ParseBool(strings.TrimSpace(value))
	if !ok || err != nil {
		return fmt.Errorf("%q is not of the form NAME=true or NAME=false", pair)
	}
	if slices.Contains(loggingGates, name) {
		return nil
	}
	if refusal, ok := g.alwaysOn[name]; ok {
		return setAlwaysOn(name, enabled, refusal)
	}
	i := slices.IndexFunc(g.gates, func(gate featureGate) bool { return gate.name == name })
	if i < 0 {
		return fmt.Errorf("unknown feature gate %q; known are %s", name, strings.Join(g.names(), ", "))
	}
	*g.gates[i].enabled = enabled
	return nil
}

func setAlwaysOn(name string, enabled bool, refusal string) error {
	if !enabled && refusal != "" {
		return fmt.Errorf("feature gate %s=false: %s", name, refusal)
	}
	klog.Background().Info("A feature gate has no effect: what it enabled is always on", "gate", name)
	return nil
}

func (g *FeatureGates) names() []string {
	var names []string
	for _, gate := range g.gates {
		names = append(names, gate.name)
	}
	return names
}

// String returns the value in the form that Set accepts.
func (g *FeatureGates) String() string {
	var pairs []string
	for _, gate := range g.gates {
		pairs = append(pairs, gate.name+"="+strconv.FormatBool(*gate.enabled))
	}
	return strings.Join(pairs, ",")
}

// Type returns the type that the help text shows.
func (g *FeatureGates) Type() string { return "gates" }
