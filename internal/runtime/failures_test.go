package runtime_test

import (
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

func TestFailureOf(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text, log string
		want      runtime.Reason
		retry     bool
		advice    string
	}{
		"CRIU is not installed": {
			text: "checkpointing of a/b/c failed (rpc error: code = Unknown desc = CRIU binary: criu binary not found)",
			want: runtime.RuntimeNotReady, advice: "install CRIU",
		},
		"CRIU is switched off in containerd": {
			text: "criu support is disabled", want: runtime.RuntimeNotReady, advice: "enable it",
		},
		"CRI-O without CRIU": {
			text: "checkpoint/restore support not available", want: runtime.RuntimeNotReady, advice: "install CRIU",
		},
		"runc without CRIU": {
			text: `exec: "criu": executable file not found in $PATH`, want: runtime.RuntimeNotReady, advice: "install CRIU",
		},
		"a node without CAP_SYS_RESOURCE": {
			text: "Error (criu/cr-dump.c:389): Can't get rlimit 0: Operation not permitted", want: runtime.RuntimeNotReady, advice: "CAP_SYS_RESOURCE",
		},
		"CRIU is too old": {
			text: "checkpoint/restore requires at least CRIU 31600, current version is 31500",
			want: runtime.CRIUTooOld, advice: "newer CRIU",
		},
		"the runtime has no checkpoint": {
			text: "rpc error: code = Unimplemented desc = method CheckpointContainer not implemented",
			want: runtime.RuntimeUnsupported, advice: "engine runc",
		},
		"the runtime does not know the method": {
			text: "unknown method CheckpointContainer for service runtime.v1.RuntimeService",
			want: runtime.RuntimeUnsupported, advice: "engine runc",
		},
		"containerd and a container that has ended": {
			text: `container is in CONTAINER_EXITED state. only CONTAINER_RUNNING containers can be checkpointed`,
			want: runtime.ContainerNotRunning, advice: "only a running",
		},
		"CRI-O and a container that has ended": {
			text: "container 0123 is not running", want: runtime.ContainerNotRunning, advice: "only a running",
		},
		"runc and a container that has ended": {
			text: "container cannot be checkpointed in stopped state", want: runtime.ContainerNotRunning,
			advice: "only a running",
		},
		"the container is paused": {
			text: "cannot pause a paused container", want: runtime.Busy, retry: true, advice: "something else",
		},
		"another checkpoint removed the directory": {
			text: "open /var/lib/containerd/x/ctrd-checkpoint/status: no such file or directory",
			want: runtime.Busy, retry: true, advice: "something else",
		},
		"the deadline of the CRI call": {
			text: "rpc error: code = DeadlineExceeded desc = context deadline exceeded",
			want: runtime.Timeout, advice: "longer timeout",
		},
		"the disk is full": {
			text: "write /tmp/criu/pages-1.img: no space left on device",
			want: runtime.InsufficientNodeDisk, retry: true, advice: "free space",
		},
		"an established TCP connection": {
			text: "Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option.",
			want: runtime.EstablishedTCP, advice: "TCP connections",
		},
		"a file lock": {
			text: "Error (criu/file-lock.c:110): Some file locks are hold by dumping tasks! You can try --file-locks to dump them.",
			want: runtime.FileLocks, advice: "runc.conf",
		},
		"a unix socket of another container": {
			text: "Error (criu/sk-unix.c:890): unix: External socket is used. Consider using --ext-unix-sk option.",
			want: runtime.ExternalUnixSocket, advice: "runc.conf",
		},
		"io_uring": {
			text: "Error (criu/files.c:1): Unknown file type: anon_inode:[io_uring]", want: runtime.IOUring, advice: "not use",
		},
		"a large deleted file": {
			text: "Error (criu/files-reg.c:935): Can't dump ghost file /x of 2097152 size, increase limit",
			want: runtime.GhostFileTooLarge, advice: "ghost-limit",
		},
		"a mount that is shared": {
			text: "Error (criu/mount.c:1): mnt: Mount 1 has unreachable sharing. Try --enable-external-masters.",
			want: runtime.MountSharing, advice: "CDI",
		},
		"the cause is only in CRIU's log": {
			text: "criu failed: type NOTIFY errno 0 path= /run/criu-dump.log",
			log:  "(00.01) Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option.",
			want: runtime.EstablishedTCP, advice: "TCP connections",
		},
		"what CRIU says comes before the deadline that follows from it": {
			text: "context deadline exceeded", log: "Some file locks are hold by dumping tasks",
			want: runtime.FileLocks, advice: "runc.conf",
		},
		"runc gives up freezing with control groups of version 1": {
			text: `checkpointing container "0123" failed: OCI runtime pause failed: unable to freeze`,
			want: runtime.FreezeFailed, retry: true, advice: "uninterruptible sleep",
		},
		"runc gives up freezing with control groups of version 2": {
			text: "OCI runtime pause failed: timeout of 10s reached waiting for the cgroup to freeze",
			want: runtime.FreezeFailed, retry: true, advice: "uninterruptible sleep",
		},
		"CRIU gives up freezing": {
			text: "Error (criu/seize.c:701): Unable to freeze cgroup /sys/fs/cgroup/x (100 x 100ms attempts, timeout: 10s)",
			want: runtime.FreezeFailed, retry: true, advice: "uninterruptible sleep",
		},
		"an unknown text, which may be gone at the next try": {
			text: "something else", want: runtime.DumpFailed, retry: true, advice: "something else",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := runtime.FailureOf(" "+test.text+"\n", test.log)
			if err.Reason != test.want || err.Retry != test.retry {
				t.Errorf("FailureOf() = %s, retry %t, want %s, %t", err.Reason, err.Retry, test.want, test.retry)
			}
			if !strings.HasPrefix(err.Error(), test.text) || !strings.Contains(err.Error(), test.advice) {
				t.Errorf("the error is %q, want the text and %q", err, test.advice)
			}
			if test.log != "" && strings.Contains(err.Error(), test.log) {
				t.Errorf("the error %q has the log", err)
			}
		})
	}
}
