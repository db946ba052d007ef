package runc

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// hostPath is where the programs of a node are looked for.
const hostPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// worker returns a command that runs this program's Main with args. It is executed by
// descriptor, since the node does not have the program in its file system.
func (e *Engine) worker(args ...string) (*exec.Cmd, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("opening this program: %w", err)
	}
	argv := append([]string{"holdfast"}, e.config.WorkerArgs...)
	return &exec.Cmd{
		Path:        "/proc/self/fd/3",
		Args:        append(argv, args...),
		Env:         []string{"PATH=" + hostPath, "GOGC=50"},
		ExtraFiles:  []*os.File{self},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}, nil
}

// startIn starts a command in the mount, process and cgroup namespaces of a process.
func startIn(pid int, cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go func() {
		// The thread is not unlocked: it cannot go back and ends with this goroutine.
		goruntime.LockOSThread()
		started <- func() error {
			if err := enter(pid); err != nil {
				return err
			}
			return cmd.Start()
		}()
	}()
	err := <-started
	for _, file := range cmd.ExtraFiles {
		file.Close()
	}
	return err
}

// enter moves the calling thread into namespaces of a process. New processes of the
// thread are in its process namespace, too.
func enter(pid int) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leaving the shared working directory: %w", err)
	}
	// Opened before the first is entered: /proc is another one then.
	var files []*os.File
	defer func() {
		for _, file := range files {
			file.Close()
		}
	}()
	namespaces := []struct {
		name string
		flag int
	}{{"cgroup", unix.CLONE_NEWCGROUP}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}}
	for _, namespace := range namespaces {
		file, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/" + namespace.name)
		if err != nil {
			return fmt.Errorf("opening a namespace of the node (the agent must be privileged and share the node's processes): %w", err)
		}
		files = append(files, file)
	}
	for i, namespace := range namespaces {
		if err := unix.Setns(int(files[i].Fd()), namespace.flag); err != nil {
			return fmt.Errorf("entering the node's %s namespace (the agent must be privileged): %w", namespace.name, err)
		}
	}
	return nil
}

// outputIn is cmd.Output in the namespaces of a process. The error has what the command
// wrote on its standard error.
func outputIn(ctx context.Context, pid int, cmd *exec.Cmd) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := startIn(pid, cmd); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}
