package app

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
)

// debug is the verbosity of klog at which each step is told.
const debug = "4"

// LogLevel says how much is logged, in words, for roles whose manifests have
// that. It stands beside klog's own -v.
type LogLevel struct{ level string }

var logLevels = []string{"debug", "info", "warn", "error"}

// AddFlags declares the group's flags.
func (l *LogLevel) AddFlags(fs *pflag.FlagSet) {
	l.level = "info"
	fs.Var(l, "log-level", "what to log: debug, info, warn or error; debug is the same as --v=4 [LOG_LEVEL]")
}

// Set takes one of the levels.
func (l *LogLevel) Set(text string) error {
	text = strings.ToLower(text)
	if !slices.Contains(logLevels, text) {
		return fmt.Errorf("there is no level %q; there are %s", text, strings.Join(logLevels, ", "))
	}
	l.level = text
	return nil
}

// String is the level.
func (l *LogLevel) String() string { return l.level }

// Type is what the help text calls the value.
func (l *LogLevel) Type() string { return "level" }

// Verbosity sets klog's -v, if that was not given.
func (l *LogLevel) Verbosity(fs *pflag.FlagSet) error {
	if v := fs.Lookup("v"); l.level == "debug" && v != nil && !v.Changed {
		return v.Value.Set(debug)
	}
	return nil
}

// Apply leaves out of a log what the level is not for: above info everything but
// errors.
func (l *LogLevel) Apply(log logr.Logger) logr.Logger {
	if l.level == "warn" || l.level == "error" {
		return log.WithSink(quiet{log.GetSink()})
	}
	return log
}

// quiet is a log of errors only.
type quiet struct{ logr.LogSink }

// Enabled implements logr.LogSink.
func (quiet) Enabled(int) bool { return false }

// WithValues implements logr.LogSink.
func (q quiet) WithValues(values ...any) logr.LogSink { return quiet{q.LogSink.WithValues(values...)} }

// WithName implements logr.LogSink.
func (q quiet) WithName(name string) logr.LogSink { return quiet{q.LogSink.WithName(name)} }
