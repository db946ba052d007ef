// Package node runs real Kubernetes nodes on this machine: kubelet, kube-proxy,
// containerd, runc and CRIU in mount, process, network, host name and IPC
// namespaces of their own, over a Debian tree that all nodes share read-only.
//
// The first process of a node is this program again (RunInit). The kernel ends
// every process of the node and drops its mounts when that one is gone.
package node

import (
	"bufio"
	"context"
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
	"sync"
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
	// Shared is the folder that all nodes of the cluster see as SharedAt.
	Shared string
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

// Log is the file, outside the node, with the output of one of its programs.
func (s Spec) Log(program string) string { return filepath.Join(s.Var(), "log", program+".log") }

const (
	// FilesAt is where a node finds its configuration.
	FilesAt = "/etc/devcluster"
	// SharedAt is where a node finds the files that it shares with the others: what
	// a shared disk or a file server is elsewhere.
	SharedAt = "/var/lib/holdfast/shared"
	// RuntimeAt is what containerd runs as its OCI runtime: a link to runc. A test that
	// replaces the link replaces the runtime of the containers that start from then on.
	RuntimeAt = "/usr/local/sbin/oci-runtime"
)

// A Node is one that was started.
type Node struct {
	Spec
	process *os.Process
	wait    func() error
	stdin   io.WriteCloser
	stdout  io.ReadCloser
}

// Start makes the node's first process, which waits for Boot.
func Start(spec Spec, line *lifeline.Line, held ...*os.File) (*Node, error) {
	cmd := lifeline.Self(InitRole, spec.Name)
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
	log, err := openLog(spec.Log(InitRole))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("making the node's namespaces (in a container, it must be privileged): %w", err)
	}
	n := &Node{Spec: spec, process: cmd.Process, wait: sync.OnceValue(cmd.Wait), stdin: stdin, stdout: stdout}
	if err := os.WriteFile(filepath.Join(spec.State, "pid"), []byte(strconv.Itoa(n.PID())), 0o644); err != nil {
		return n, fmt.Errorf("writing the node's process number: %w", err)
	}
	return n, nil
}

func openLog(file string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of logs: %w", err)
	}
	log, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	return log, nil
}

// PID is the node's first process, as this machine counts.
func (n *Node) PID() int { return n.process.Pid }

// ProxyHealth is the URL under which the node's kube-proxy tells how it is.
func (n *Node) ProxyHealth() string { return "http://" + n.Address.String() + ":10256/healthz" }

// Boot lets the node go and returns when its container runtime and kubelet
// run. Whether Kubernetes calls it Ready is the API's to say. If ctx ends
// first, so does the node.
func (n *Node) Boot(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = n.process.Kill() })()
	if err := json.NewEncoder(n.stdin).Encode(n.Spec); err != nil {
		return fmt.Errorf("booting node %s: %w", n.Name, err)
	}
	answer, err := bufio.NewReader(n.stdout).ReadString('\n')
	answer = strings.TrimSpace(answer)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("booting node %s: %w", n.Name, context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("booting node %s: it ended before it was up: %w: %s", n.Name, n.Wait(), lastLine(n.Log(InitRole)))
	case answer != bootedAnswer:
		return fmt.Errorf("booting node %s: %s", n.Name, answer)
	}
	return nil
}

// Wait returns when the node has ended, with how.
func (n *Node) Wait() error { return n.wait() }

// Stop ends the node and everything on it.
func (n *Node) Stop() error {
	if err := n.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping node %s: %w", n.Name, err)
	}
	_ = n.Wait() // It was killed: that is the only news in its exit status.
	return nil
}

// Command returns a command that runs inside the node that lives in state,
// where it is root of the node's namespaces.
func Command(state string, args ...string) (*exec.Cmd, error) {
	name := filepath.Base(state)
	text, err := os.ReadFile(filepath.Join(state, "pid"))
	if err != nil {
		return nil, fmt.Errorf("finding node %s: %w", name, err)
	}
	// The number of a node that has ended may be another process's by now.
	called, err := os.ReadFile(filepath.Join("/proc", string(text), "cmdline"))
	if err != nil || string(called) != InitRole+"\x00"+name+"\x00" {
		return nil, fmt.Errorf("node %s has ended", name)
	}
	enter := []string{
		"--target", string(text), "--mount", "--pid", "--net", "--uts", "--ipc", "--root", "--wd", "--", "/usr/bin/env", "PATH=" + path,
	}
	return exec.Command("nsenter", append(enter, args...)...), nil
}
