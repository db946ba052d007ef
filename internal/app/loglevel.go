package app

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
)

// debugVerbosity is klog's verbosity at which each step is logged.
const debugVerbosity = "4"

// LogLevel is the value of --log-level, for roles whose upstream program has it. It
// exists in addition to klog's -v.
type LogLevel struct{ level string }

var logLevels = []string{"debug", "info", "warn", "error"}

// AddFlags declares the group's flags.
func (l *LogLevel) AddFlags(fs *pflag.FlagSet) {
	l.level = "info"
	fs.Var(l, "log-level", "minimum severity of log lines: debug, info, warn or error; debug is the same as --v=4 [LOG_LEVEL]")
}

// Set sets the level by its name.
func (l *LogLevel) Set(text string) error {
	text = strings.ToLower(text)
	if !slices.Contains(logLevels, text) {
		return fmt.Errorf("unknown log level %q; known are %s", text, strings.Join(logLevels, ", "))
	}
	l.level = text
	return nil
}

// String returns the level.
func (l *LogLevel) String() string { return l.level }

// Type returns the type that the help text shows.
func (l *LogLevel) Type() string { return "level" }

// SetVerbosity sets klog's -v for the level debug, unless -v was given.
func (l *LogLevel) SetVerbosity(fs *pflag.FlagSet) error {
	if v := fs.Lookup("v"); l.level == "debug" && v != nil && !v.Changed {
		return v.Value.Set(debugVerbosity)
	}
	return nil
}

// Filter returns a logger that logs only errors if the level is warn or error. logr
// has no warnings.
func (l *LogLevel) Filter(log logr.Logger) logr.Logger {
	if l.level == "warn" || l.level == "error" {
		return log.WithSink(errorsOnly{log.GetSink()})
	}
	return log
}

// errorsOnly is a log sink that drops everything but errors.
type errorsOnly struct{ logr.LogSink }

// Enabled implements logr.LogSink.
func (errorsOnly) Enabled(int) bool { return false }

// WithValues implements logr.LogSink.
func (e errorsOnly) WithValues(values ...any) logr.LogSink {
	return errorsOnly{e.LogSink.WithValues(values...)}
}

// WithName implements logr.LogSink.
func (e errorsOnly) WithName(name string) logr.LogSink { return errorsOnly{e.LogSink.WithName(name)} }
