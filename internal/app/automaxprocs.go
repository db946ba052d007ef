package app

import (
	"os"
	"runtime"
	"strconv"

	"github.com/spf13/pflag"
)

// AddAutomaxprocsFlag declares --automaxprocs. Go's runtime keeps to the quota of
// the container by itself since 1.25, so that only the wish not to do so is left
// to be fulfilled.
func AddAutomaxprocsFlag(fs *pflag.FlagSet) {
	fs.Var(processors{}, "automaxprocs", "keep to the processors of the container")
	fs.Lookup("automaxprocs").NoOptDefVal = "true"
	deprecate(fs, "automaxprocs", "the program keeps to the processors of its container by itself; =false has it use all of the machine")
}

// processors is the value of --automaxprocs.
type processors struct{}

// Set with false has Go use every processor that the process may run on; the
// environment's GOMAXPROCS comes before that.
func (processors) Set(text string) error {
	on, err := strconv.ParseBool(text)
	if err == nil && !on && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.NumCPU())
	}
	return err
}

// String is the default.
func (processors) String() string { return "true" }

// Type is what the help text calls the value.
func (processors) Type() string { return "bool" }
