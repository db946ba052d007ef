package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// ErrUnprivileged reports that the process lacks the privileges for devices and
// mounts.
var ErrUnprivileged = errors.New("the driver does not run as root")

// RequireRoot returns ErrUnprivileged if the process is not root. Devices and mounts
// need CAP_SYS_ADMIN, which root is assumed to have.
func RequireRoot() error {
	if os.Geteuid() == 0 {
		return nil
	}
	return fmt.Errorf("%w: devices and mounts need root and the user is %d; run it as root (in Kubernetes: a privileged container)",
		ErrUnprivileged, os.Geteuid())
}

// run runs a tool until it exits. It deliberately takes no context: killing mkfs or
// fsck half way does not help, and the caller's next attempt waits for it.
func run(name string, args ...string) (exit int, err error) {
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return -1, fmt.Errorf("running %s: it is not installed where the driver runs", name)
	}
	if err != nil {
		// The message omits the arguments: mount options may be secret.
		return cmd.ProcessState.ExitCode(), fmt.Errorf("running %s: %w: %s", name, err, lastLines(out.String()))
	}
	return 0, nil
}

// lastLines returns the end of a tool's output, where tools report errors.
func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) > 4 {
		lines = lines[len(lines)-4:]
	}
	return strings.Join(lines, "; ")
}
