// Package node runs real Kubernetes nodes on this machine: kubelet, kube-proxy,
// containerd, runc and CRIU in mount, process, network, host name and IPC
// namespaces of their own, over a Debian tree that all nodes share read-only.
//
// The first process of a node is this program again (RunInit). The kernel ends
// every process of the node and drops its mounts when that one is gone.
package node

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/holdfast-io/holdfast/devcluster/internal/lifeline"
)

// InitRole is the name under which the program is a node's first process.
const InitRole = "node-init"

// A Spec says what a node is made of. It travels to the node's first process
// as JSON on its standard input.
type Spec struct {
	// Name is the node's name in Kubernetes and its host name.
	Name string
	// Tree is the Debian tree (see Tree) under the node's root.
	Tree string
	// State is the node's own folder; Files, Root and Var lie in it.
	State string
	// Address is the node's address, Pods the range of its pods.
	Address netip.Addr
	Pods    netip.Prefix
	// Cgroup is the group, in every hierarchy, under which pods are put.
	Cgroup string
}

// Files is the folder with the node's configuration; the node sees it as FilesAt.
func (s Spec) Files() string { return filepath.Join(s.State, "files") }

// Var is the folder that the node sees as /var.
func (s Spec) Var() string { return filepath.Join(s.State, "var") }

// FilesAt is where a node finds its configuration.
const FilesAt = "/etc/devcluster"

// A Node is one that was started.
type Node struct {
	Spec
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.ReadCloser
}

// Start makes the node's first process, which waits for Boot.
func Start(spec Spec, line *lifeline.Line, held ...*os.File) (*Node, error) {
	cmd := exec.Command("/proc/self/exe", InitRole)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	line.Attach(cmd, held...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe to the node: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe from the node: %w", err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("making the node's namespaces: %w", err)
	}
	n := &Node{Spec: spec, cmd: cmd, stdin: stdin, stdout: stdout}
	return n, os.WriteFile(filepath.Join(spec.State, "pid"), []byte(strconv.Itoa(n.PID())), 0o644)
}

// PID is the node's first process, as this machine counts.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Boot lets the node go and returns when its container runtime and kubelet
// run. Whether Kubernetes calls it Ready is the API's to say.
func (n *Node) Boot() error {
	if err := json.NewEncoder(n.stdin).Encode(n.Spec); err != nil {
		return fmt.Errorf("booting node %s: %w", n.Name, err)
	}
	answer, err := bufio.NewReader(n.stdout).ReadString('\n')
	answer = strings.TrimSpace(answer)
	switch {
	case err != nil:
		return fmt.Errorf("booting node %s: it ended before it was up: %w", n.Name, errors.Join(err, n.cmd.Wait()))
	case answer != bootedAnswer:
		return fmt.Errorf("booting node %s: %s", n.Name, answer)
	}
	return nil
}

// Stop ends the node and everything on it.
func (n *Node) Stop() error {
	if err := n.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping node %s: %w", n.Name, err)
	}
	_ = n.cmd.Wait() // It was killed: that is the only news in its exit status.
	return nil
}

// Command returns a command that runs inside the node that lives in state,
// where it is root of the node's namespaces.
func Command(state string, args ...string) (*exec.Cmd, error) {
	pid, err := os.ReadFile(filepath.Join(state, "pid"))
	if err != nil {
		return nil, fmt.Errorf("finding the node: %w", err)
	}
	enter := []string{
		"--target", string(pid), "--mount", "--pid", "--net", "--uts", "--ipc", "--root", "--wd", "--", "/usr/bin/env", "PATH=" + path,
	}
	return exec.Command("nsenter", append(enter, args...)...), nil
}
