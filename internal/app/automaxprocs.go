package app

import (
	"os"
	"runtime"
	"strconv"

	"github.com/spf13/pflag"
)

// AddAutomaxprocsFlag declares --automaxprocs, which upstream's sidecars have. Since
// Go 1.25 the runtime respects the container's CPU limit by default, so only opting
// out still needs a flag.
func AddAutomaxprocsFlag(fs *pflag.FlagSet) {
	fs.Var(automaxprocs{}, "automaxprocs", "limit GOMAXPROCS to the CPU limit of the container")
	fs.Lookup("automaxprocs").NoOptDefVal = "true"
	deprecate(fs, "automaxprocs", "the program respects the CPU limit of its container by default; =false makes it use all CPUs of the machine")
}

// automaxprocs is the value of --automaxprocs.
type automaxprocs struct{}

// Set with false makes Go use every CPU that the process may run on, unless
// GOMAXPROCS is set.
func (automaxprocs) Set(text string) error {
	on, err := strconv.ParseBool(text)
	if err == nil && !on && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.NumCPU())
	}
	return err
}

// String returns the default.
func (automaxprocs) String() string { return "true" }

// Type returns the type that the help text shows.
func (automaxprocs) Type() string { return "bool" }
