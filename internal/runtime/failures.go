package runtime

import (
	"fmt"
	"strings"
)

// A failure is what a text in an error or log of the kubelet, the CRI runtime, the OCI
// runtime or CRIU means.
type failure struct {
	texts  []string // any of them
	reason Reason
	retry  bool
	advice string
}

// failures is in the order in which texts are looked for: what CRIU says about a process
// comes before what others make of it.
var failures = []failure{
	{
		[]string{"Connected TCP socket", "tcp-established"},
		EstablishedTCP, false, "close the container's TCP connections, or choose to close them at restore",
	}, {
		[]string{"Some file locks are hold by dumping tasks", "file-locks"},
		FileLocks, false, "have the program release its file locks, or add file-locks to /etc/criu/runc.conf of the node",
	}, {
		[]string{"External socket is used", "ext-unix-sk"},
		ExternalUnixSocket, false, "have the program close its connections to unix sockets outside of the container, " +
			"or add ext-unix-sk to /etc/criu/runc.conf of the node",
	}, {
		[]string{"io_uring"},
		IOUring, false, "have the program not use io_uring, which CRIU cannot dump",
	}, {
		[]string{"an't dump ghost file", "ghost-limit"},
		GhostFileTooLarge, false, "have the program close its deleted files, " +
			"or set a larger ghost-limit (bytes) in /etc/criu/runc.conf of the node",
	}, {
		[]string{"unreachable sharing", "enable-external-masters"},
		MountSharing, false, "mount without propagation (devices by CDI), " +
			"or add enable-external-masters to /etc/criu/runc.conf of the node",
	}, {
		[]string{"requires at least CRIU", "CRIU version must be"},
		CRIUTooOld, false, "install a newer CRIU on the node and restart its CRI runtime",
	}, {
		[]string{
			"criu binary not found", "criu support is disabled", "checkpoint/restore support not available",
			`"criu": executable file not found`,
		},
		RuntimeNotReady, false, "install CRIU on the node, enable it in the configuration of the CRI runtime, " +
			"and restart that",
	}, {
		[]string{"Unimplemented", "unknown method CheckpointContainer"},
		RuntimeUnsupported, false, "use a CRI runtime that has checkpoints (containerd 2.0, CRI-O 1.25, or newer), " +
			"or the engine runc",
	}, {
		[]string{"cannot pause a paused container", "ctrd-checkpoint/status"},
		Busy, true, "something else checkpoints the container or has paused it",
	}, {
		[]string{"Can't get rlimit"},
		RuntimeNotReady, false, "CRIU lacks CAP_SYS_RESOURCE on the node, which it needs for processes of other users than root",
	}, {
		// runc gives up within milliseconds (control groups of version 1) or after 10 seconds
		// (version 2), CRIU after its timeout. runc leaves it to the caller to repeat it.
		[]string{"unable to freeze", "waiting for the cgroup to freeze", "Unable to freeze cgroup"},
		FreezeFailed, true, "a process of the container was in an uninterruptible sleep, such as one on a slow " +
			"file system, or the node is very busy",
	}, {
		[]string{
			"containers can be checkpointed", "is not running", "cannot be checkpointed in",
			"container not running",
		},
		ContainerNotRunning, false, "only a running container can be checkpointed",
	}, {
		[]string{"no space left on device"},
		InsufficientNodeDisk, true, "free space on the node: a checkpoint needs four times its size, " +
			"some of it in the temporary directory of the CRI runtime",
	}, {
		[]string{"DeadlineExceeded", "context deadline exceeded"},
		Timeout, false, "set a longer timeout, for which the container stays frozen",
	},
}

// FailureOf returns what a text means with which the kubelet, the CRI runtime or the OCI
// runtime has answered: [DumpFailed] if it is not a known one, which may be gone at the next
// try, such as a process that started or ended during the dump. In details, such as the error
// lines of CRIU's log, it looks for known texts too, but does not repeat them.
func FailureOf(text string, details ...string) *Error {
	text = strings.TrimSpace(text)
	for _, f := range failures {
		if !f.isIn(text) && !f.isIn(strings.Join(details, "\n")) {
			continue
		}
		return &Error{Reason: f.reason, Retry: f.retry, Err: fmt.Errorf("%s: %s", text, f.advice)}
	}
	return RetryErrorf(DumpFailed, "%s", text)
}

func (f failure) isIn(text string) bool {
	for _, known := range f.texts {
		if strings.Contains(text, known) {
			return true
		}
	}
	return false
}
