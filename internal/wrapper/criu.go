package wrapper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/mounts"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

const (
	// workDir is the directory for CRIU's configuration and log of one restore, in the
	// container's place.
	workDir = "criu"
	// criuConfig is read by CRIU before the node's own configuration, which wins.
	criuConfig = "criu.conf"
	criuLog    = "restore.log"
	// criuPatience is how long the runtime may take to end after CRIU was killed.
	criuPatience = 5 * time.Second
	// criuName is the name of CRIU's process, and criuPoll is how often the program looks whether
	// it has died.
	criuName = "criu"
	criuPoll = 500 * time.Millisecond
)

// restoreProcesses has the real runtime restore the processes.
func (w *wrapper) restoreProcesses(ctx context.Context, place *ticket.Container, s *spec, t *ticket.Ticket) (err error) {
	work := filepath.Join(place.Dir(), workDir)
	// A wrapper that was killed may have left it.
	if err := mounts.RemoveAll(work); err != nil {
		return err
	}
	if err := os.MkdirAll(work, 0o700); err != nil {
		return fmt.Errorf("making a directory for CRIU: %w", err)
	}
	defer func() { err = errors.Join(err, mounts.RemoveAll(work)) }()
	options := ""
	if t.CloseTCP {
		options = "tcp-close\n"
	}
	config := filepath.Join(work, criuConfig)
	if err := os.WriteFile(config, []byte(options), 0o600); err != nil {
		return fmt.Errorf("writing the configuration of CRIU: %w", err)
	}
	cmd := exec.CommandContext(ctx, w.config.runtime, w.restoreArgs(place, s)...)
	cmd.Env = append(os.Environ(), "CRIU_CONFIG_FILE="+config)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Without CRIU, runc fails, and unmounts what it has mounted.
	cmd.Cancel = func() error { return killDescendants(cmd.Process.Pid) }
	cmd.WaitDelay = criuPatience
	logged := logSize(w.call.log)
	err = runWatched(cmd)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", errInterrupted, context.Cause(ctx))
	case err != nil:
		return explainRestore(filepath.Join(work, criuLog), lastError(w.call.log, logged), err)
	}
	return nil
}

// runWatched runs the real runtime's restore. If CRIU dies, the processes that it was
// restoring wait for it forever, and the runtime waits for them: they have its end of the
// socket. They are killed then, so that the runtime fails.
func runWatched(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	ended, killed := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(criuPoll)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				killed <- nil
				return
			case <-tick.C:
				if hasDeadChild(cmd.Process.Pid, criuName) {
					killed <- killDescendants(cmd.Process.Pid)
					return
				}
			}
		}
	}()
	err := cmd.Wait()
	close(ended)
	return errors.Join(err, <-killed)
}

func (w *wrapper) restoreArgs(place *ticket.Container, s *spec) []string {
	c := w.call
	// In CRIU's configuration it would have no effect: runc and crun always say whether to
	// restore locks.
	args := append(append([]string{}, c.global...), "restore", "--detach", "--file-locks", "--bundle", c.bundleDir())
	if c.pidFile != "" {
		args = append(args, "--pid-file", c.pidFile)
	}
	if c.consoleSocket != "" {
		args = append(args, "--console-socket", c.consoleSocket)
	}
	if c.noPivot {
		args = append(args, "--no-pivot")
	}
	// SELinux separates pods by labels. That of the checkpoint is another pod's.
	if s.Process.SELinuxLabel != "" {
		args = append(args, "--lsm-profile", "selinux:"+s.Process.SELinuxLabel)
	}
	if s.Linux.MountLabel != "" {
		args = append(args, "--lsm-mount-context", s.Linux.MountLabel)
	}
	return append(args, "--image-path", place.ImagesDir(), "--work-path", filepath.Join(place.Dir(), workDir), c.id)
}

func logSize(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0 // There is none yet.
	}
	return info.Size()
}

// lastError returns the last error that the runtime has logged since, "" without one.
func lastError(name string, since int64) string {
	file, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer file.Close()
	if _, err := file.Seek(since, io.SeekStart); err != nil {
		return ""
	}
	last := ""
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Level == "error" {
			last = entry.Msg
		}
	}
	return last
}

// A cause is a reason of CRIU for which there is advice.
type cause struct {
	texts  []string // of which one is in the error
	advice string
	never  bool // whether the restore fails whenever it is repeated
}

// causes are for messages of CRIU: files-reg.c, sk-inet.c, cpuinfo.c, mount.c.
var causes = []cause{
	{[]string{"has bad size", "has bad build-id", "build-id"}, "VolumeChanged: a file that the process has open has changed since the checkpoint; " +
		"restore the volume of that time, too", true},
	{[]string{"Can't open file", "No such file or directory"}, "VolumeChanged: a file that the process has open is missing", true},
	{[]string{"expects following bind mounts", "No mapping for", "mount point is missing"}, "MountMissing: the new container lacks a mount of the checkpoint", true},
	{[]string{"cpuinfo", "xsave", "CPU features", "CPU capability"}, "CPUIncompatible: the CPU of this node lacks a feature that the process uses; " +
		"restore on a node with the CPU features of the checkpoint's", true},
	{[]string{"Address already in use"}, "AddressBound: another container of the pod listens on a port of the process, or connections of the container that was " +
		"stopped still close, for up to a minute: let the program listen with SO_REUSEADDR, or the policy restore with onFailure: Retry", false},
	{[]string{"Can't bind inet socket", "Cannot assign requested address", "EADDRNOTAVAIL"}, "AddressBound: the process listens on an address that the new pod does not have; " +
		"let it listen on all addresses", true},
	{[]string{"Failed to create shm set", "Failed to create sem set", "Failed to create msg queue"}, "SysVIPC: a container that is not restored may use this System V object; " +
		"checkpoint all containers of the pod, or restore in a new pod", false},
	{[]string{"Cannot allocate memory", "Out of memory"}, "the node or the memory limit of the container has too little memory for the checkpoint", false},
	{[]string{"No space left on device"}, "free disk space on the node", false},
	{[]string{"tcp-established", "Connected TCP socket"}, "EstablishedTCP: the checkpoint has open connections; let the restore close them", true},
	{[]string{"unixpacket"}, "CRIU has ended without an answer: the kernel may have killed it, for lack of memory", false},
	{[]string{"executable file not found", "criu: not found"}, "RuntimeNotReady: install CRIU on the node", false},
}

// explainRestore says why a restore has failed: CRIU's first error, and what it means. Said is
// the runtime's own message.
func explainRestore(logFile, said string, failed error) error {
	problem := firstError(logFile)
	if problem == "" {
		problem = said
	}
	if problem == "" {
		problem = failed.Error()
	}
	text := "CRIU cannot restore the container: " + problem
	for _, c := range causes {
		for _, known := range c.texts {
			if !strings.Contains(problem+said, known) {
				continue
			}
			if c.never {
				return incompatible("%s (%s)", text, c.advice)
			}
			return fmt.Errorf("%s (%s)", text, c.advice)
		}
	}
	return errors.New(text)
}

// firstError returns the first error in CRIU's log, "" without one. That CRIU may not raise
// its own limit of open files is harmless.
func firstError(logFile string) string {
	file, err := os.Open(logFile)
	if err != nil {
		return ""
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		_, text, isError := strings.Cut(lines.Text(), "Error (")
		if isError && !strings.Contains(text, "RLIMIT_NOFILE for self") {
			return "Error (" + text
		}
	}
	return ""
}
