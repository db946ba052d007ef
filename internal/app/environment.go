package app

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// An EnvVar is an environment variable that sets flags.
type EnvVar struct {
	Name  string
	Flags []string
}

// ApplyEnvironment sets the flags of fs that are not on the command line. The
// command line overrides the environment, and the environment overrides the
// default. An empty variable counts as not set.
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
			// fs.Set would mark the flag as changed on the command line.
			if err := flag.Value.Set(value); err != nil {
				errs = append(errs, fmt.Errorf("environment variable %s=%q: %w", v.Name, value, err))
			}
		}
	}
	return errors.Join(errs...)
}

// NormalizeDashes gives long flags with one dash a second one. Go's flag package,
// which upstream's sidecars use, accepts both forms; pflag accepts only two dashes.
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

// serviceAccountNamespace is the file in which a pod finds its own namespace.
const serviceAccountNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Namespace returns the namespace that this program runs in: the given one, else
// POD_NAMESPACE, else that of the pod's service account, else "default".
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
