package runc

import (
	"strings"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// explainCRIU finds out what a failed dump means from what runc said and from CRIU's log.
// The error has CRIU's own first error.
func explainCRIU(said, log string) *runtime.Error {
	details := errorLines(log)
	problem, _, _ := strings.Cut(details, "\n")
	if problem == "" {
		problem = said
	}
	problem = "CRIU cannot dump the container: " + strings.TrimSpace(problem)
	if strings.Contains(strings.ToLower(said+details), "no space left on device") {
		return runtime.RetryErrorf(runtime.InsufficientNodeDisk, "%s: free disk space on the node", problem)
	}
	return runtime.FailureOf(problem, said, details)
}

// errorLines returns the lines of CRIU's log that are errors: warnings of a log name many
// things that did no harm. That CRIU may not raise its own limit of open files is harmless,
// too.
func errorLines(log string) string {
	var lines strings.Builder
	for line := range strings.Lines(log) {
		if strings.Contains(line, "Error (") && !strings.Contains(line, "RLIMIT_NOFILE for self") {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

// progressOf says how far a dump had come that was stopped.
func progressOf(log string) string {
	last := strings.TrimSpace(log)
	if last == "" {
		return "CRIU had not begun"
	}
	return "CRIU's last message was: " + last[strings.LastIndex(last, "\n")+1:]
}
