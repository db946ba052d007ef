package app

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// A EnvVar of the environment sets flags that the command line leaves out.
type EnvVar struct {
	Name  string
	Flags []string
}

// ApplyEnvironment applies variables to the flags of fs that were not given:
// the command line comes before the environment, and that before the default.
// An empty variable counts as not set.
func ApplyEnvironment(fs *pflag.FlagSet, variables ...EnvVar) error {
	var errs []error
	for _, v := range variables {
		value := os.Getenv(v.Name)
		if value == "" {
			continue
		}
		for _, name := range v.Flags {
			flag := fs.Lookup(name)
			if flag == nil || flag.Changed {
				continue
			}
			// Not through fs.Set, which would mark the flag as given.
			if err := flag.Value.Set(value); err != nil {
				errs = append(errs, fmt.Errorf("environment variable %s=%q: %w", v.Name, value, err))
			}
		}
	}
	return errors.Join(errs...)
}

// NormalizeDashes rewrites long flags with one dash, as Go's own flag package
// takes them and old manifests have them, into the form that pflag takes.
func NormalizeDashes(fs *pflag.FlagSet, args []string) []string {
	out := make([]string, 0, len(args))
	for i, arg := range args {
		if arg == "--" {
			return append(out, args[i:]...)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		single := strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "--")
		if single && len(name) > 1 && fs.Lookup(name) != nil {
			arg = "-" + arg
		}
		out = append(out, arg)
	}
	return out
}

// serviceAccountNamespace is where a pod finds its own namespace.
const serviceAccountNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Namespace is the one that this program lives in: the given one, else the
// environment's POD_NAMESPACE, else that of the pod's service account, else
// "default".
func Namespace(given string) string {
	if given != "" {
		return given
	}
	if ns := os.Getenv("POD_NAMESPACE"); ns != "" {
		return ns
	}
	if text, err := os.ReadFile(serviceAccountNamespace); err == nil {
		if ns := strings.TrimSpace(string(text)); ns != "" {
			return ns
		}
	}
	return "default"
}
