package runc

import (
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

func TestExplainCRIU(t *testing.T) {
	tests := map[string]struct {
		said, log string
		want      runtime.Reason
		retry     bool
	}{
		"runc without CRIU":             {`exec: "criu": executable file not found in $PATH`, "", runtime.RuntimeNotReady, false},
		"a full disk, in runc's output": {"write descriptors.json: no space left on device", "", runtime.InsufficientNodeDisk, true},
		"a full disk, in CRIU's log":    {"criu failed", "(00.1) Error (criu/util.c:1): Can't write: No space left on device\n", runtime.InsufficientNodeDisk, true},
		"a TCP connection": {"criu failed", "(00.1) Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option.\n",
			runtime.EstablishedTCP, false},
		"a file lock": {"", "(00.1) Error (criu/file-lock.c:110): Some file locks are hold by dumping tasks! You can try --file-locks\n",
			runtime.FileLocks, false},
		"a socket of another container": {"", "(00.1) Error (criu/sk-unix.c:900): unix: External socket is used. Consider using --ext-unix-sk option.\n",
			runtime.ExternalUnixSocket, false},
		"io_uring":             {"", "(00.1) Error (criu/files-ext.c:98): Can't dump file 5 of that type [0] (unknown anon_inode:[io_uring])\n", runtime.IOUring, false},
		"a large deleted file": {"", "(00.1) Error (criu/files-reg.c:900): Can't dump ghost file /x of 2097152 size, increase limit\n", runtime.GhostFileTooLarge, false},
		"a shared mount": {"", "(00.1) Error (criu/mount.c:1088): mnt: Mount 290 ./x (master_id: 3 shared_id: 0) has unreachable sharing. Try --enable-external-masters.\n",
			runtime.MountSharing, false},
		"a container that is being created": {"Container cannot be checkpointed in created state", "", runtime.ContainerNotRunning, false},
		"a warning is no reason":            {"criu failed", "(00.1) Warn  (criu/x.c:1): io_uring is not supported\n(00.2) Error (criu/y.c:2): it broke\n", runtime.DumpFailed, true},
		"a limit that CRIU may not raise is no reason": {"criu failed", "(00.1) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self\n" +
			"(00.2) Error (criu/y.c:2): it broke\n", runtime.DumpFailed, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := explainCRIU(tt.said, tt.log)
			if err.Reason != tt.want || err.Retry != tt.retry {
				t.Errorf("reason %s, retry %v: %v; want %s, %v", err.Reason, err.Retry, err, tt.want, tt.retry)
			}
			if tt.want == runtime.DumpFailed && !strings.Contains(err.Error(), "it broke") {
				t.Errorf("%q does not have CRIU's error", err)
			}
		})
	}
}

func TestProgressOf(t *testing.T) {
	tests := map[string]struct{ log, want string }{
		"there is no log":                     {"", "CRIU had not begun"},
		"the last line of several":            {"(00.1) a\n(00.2) b\n", "CRIU's last message was: (00.2) b"},
		"a line that CRIU has not ended":      {"(00.1) a\n(00.2) dump", "CRIU's last message was: (00.2) dump"},
		"a line that is the only one":         {"(00.1) a\n", "CRIU's last message was: (00.1) a"},
		"an empty line at the end of the log": {"(00.1) a\n\n", "CRIU's last message was: (00.1) a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := progressOf(tt.log); got != tt.want {
				t.Errorf("progressOf() = %q, want %q", got, tt.want)
			}
		})
	}
}
