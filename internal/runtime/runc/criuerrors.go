package runc

import (
	"regexp"
	"strings"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A criuMessage is a message of CRIU or runc and what it means for the user.
type criuMessage struct {
	pattern *regexp.Regexp
	reason  runtime.Reason
	advice  string
	retry   bool
}

// criuMessages are looked for in this order.
var criuMessages = []criuMessage{
	{regexp.MustCompile(`executable file not found|criu: no such file|criu binary not found|checkpoint/restore is not supported`), runtime.RuntimeNotReady,
		"install CRIU on the node", false},
	{regexp.MustCompile(`CRIU version [0-9]+ must be [0-9]+ or higher|requires at least CRIU`), runtime.CRIUTooOld,
		"install a newer CRIU on the node", false},
	{regexp.MustCompile(`(?i)no space left on device`), runtime.InsufficientNodeDisk,
		"free disk space on the node", true},
	{regexp.MustCompile(`Connected TCP socket|tcp-established`), runtime.EstablishedTCP,
		"close the connections, or allow the checkpoint to close them when it is restored", false},
	{regexp.MustCompile(`Some file locks are hold by dumping tasks`), runtime.FileLocks,
		"release the file locks", false},
	{regexp.MustCompile(`External socket is used|ext-unix-sk`), runtime.ExternalUnixSocket,
		"close the connections to unix sockets of other containers", false},
	{regexp.MustCompile(`io_uring`), runtime.IOUring,
		"turn io_uring off in the program", false},
	{regexp.MustCompile(`(?i)can't dump ghost file|ghost-limit`), runtime.GhostFileTooLarge,
		"close the deleted file, or raise ghost-limit in /etc/criu/runc.conf of the node", false},
	{regexp.MustCompile(`unreachable sharing`), runtime.MountSharing,
		"do not share mounts between the container and the node, or set enable-external-masters in /etc/criu/runc.conf of the node", false},
	{regexp.MustCompile(`cannot be checkpointed in \w+ state|container is not running`), runtime.ContainerNotRunning,
		"wait until the container runs", false},
}

// explainCRIU finds out what a failed dump means from what runc said and from CRIU's log.
// Without a known reason the error has CRIU's own first error.
func explainCRIU(said, log string) *runtime.Error {
	problem := firstError(log)
	if problem == "" {
		problem = strings.TrimSpace(said)
	}
	// Only errors count: warnings of a log name many things that did no harm.
	text := said + "\n" + errorLines(log)
	for _, m := range criuMessages {
		if line := m.pattern.FindString(text); line != "" {
			e := runtime.Errorf(m.reason, "CRIU cannot dump the container: %s; %s", lineWith(text, line), m.advice)
			e.Retry = m.retry
			return e
		}
	}
	e := runtime.Errorf(runtime.DumpFailed, "CRIU cannot dump the container: %s", problem)
	e.Retry = true
	return e
}

// errorLines returns the lines of CRIU's log that are errors.
func errorLines(log string) string {
	var lines strings.Builder
	for line := range strings.Lines(log) {
		if isError(line) {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

func firstError(log string) string {
	for line := range strings.Lines(log) {
		if isError(line) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// isError reports whether a line is an error. That CRIU may not raise its own limit of open
// files is harmless.
func isError(line string) bool {
	return strings.Contains(line, "Error (") && !strings.Contains(line, "RLIMIT_NOFILE for self")
}

// lineWith returns the line of a text in which a match is.
func lineWith(text, match string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, match) {
			return strings.TrimSpace(line)
		}
	}
	return match
}
