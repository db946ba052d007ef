// Package oci looks at the running containers of a node as the OCI runtime sees them, and ends
// them.
package oci

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime/freezer"
)

// ErrNotFound means that the node has no such container: it has ended, or its CRI runtime
// keeps bundles in a place that this package does not know.
var ErrNotFound = errors.New("the node has no bundle of the container")

// A Node is the file system of a node, which the process shares the process IDs of.
type Node struct {
	// Root is where it is mounted.
	Root string
}

// bundleDirs are where CRI runtimes keep bundles, %s is the container's ID: containerd's, and
// CRI-O's.
var bundleDirs = []string{
	"run/containerd/io.containerd.runtime.v2.task/k8s.io/%s",
	"run/containers/storage/overlay-containers/%s/userdata",
	"var/run/containers/storage/overlay-containers/%s/userdata",
}

// A Bundle is that of a running container.
type Bundle struct {
	// Spec is the OCI specification, as JSON.
	Spec []byte
	// Runtime is the program that the CRI runtime calls for the container; "" if that is not
	// known.
	Runtime string
	// Wrapped is whether Runtime is holdfast-runtime.
	Wrapped bool
	// OfPod is whether all containers of the pod are started by Runtime, whatever the CRI
	// runtime's configuration says meanwhile: containerd keeps what it has for the pod's sandbox,
	// and CRI-O looks it up for each container.
	OfPod bool
}

// Bundle returns the bundle of a container.
func (n Node) Bundle(id string) (*Bundle, error) {
	for _, pattern := range bundleDirs {
		dir := filepath.Join(n.Root, fmt.Sprintf(pattern, filepath.Base(id)))
		spec, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the OCI specification of container %s: %w", id, err)
		}
		program, err := n.runtimeOf(dir)
		if err != nil {
			return nil, fmt.Errorf("finding the OCI runtime of container %s: %w", id, err)
		}
		return &Bundle{Spec: spec, Runtime: program, Wrapped: n.IsWrapper(program), OfPod: strings.Contains(pattern, "containerd")}, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, ErrNotFound)
}

// runtimeOf returns what containerd's shim calls.
func (n Node) runtimeOf(dir string) (string, error) {
	var options struct {
		BinaryName string `json:"binary_name"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "options.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return n.runtimeOfMonitor(dir)
	}
	if err == nil {
		err = json.Unmarshal(text, &options)
	}
	return options.BinaryName, err
}

// runtimeOfMonitor returns what CRI-O's monitor calls: the argument of its flag -r.
func (n Node) runtimeOfMonitor(dir string) (string, error) {
	pid, err := os.ReadFile(filepath.Join(dir, "conmon-pidfile"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	line, err := os.ReadFile(filepath.Join(n.Root, "proc", filepath.Base(string(bytes.TrimSpace(pid))), "cmdline"))
	if err != nil {
		return "", err
	}
	return argumentOf(line, "-r"), nil
}

// searchPath is where CRI runtimes find an OCI runtime that they have only the name of.
var searchPath = []string{"usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"}

// IsWrapper reports whether a program is holdfast-runtime: it has its configuration beside
// it. An empty name stands for runc.
func (n Node) IsWrapper(program string) bool {
	if strings.Contains(program, "/") {
		return filepath.IsAbs(program) && n.isConfiguration(program+".json")
	}
	for _, dir := range searchPath {
		if path := filepath.Join(dir, cmp.Or(program, "runc")); n.exists(path) {
			return n.isConfiguration(path + ".json")
		}
	}
	return false
}

func (n Node) exists(path string) bool {
	_, err := os.Lstat(filepath.Join(n.Root, path)) // Links lead elsewhere from here.
	return err == nil
}

// isConfiguration reports whether a file configures holdfast-runtime.
func (n Node) isConfiguration(path string) bool {
	var configuration struct {
		Runtime string `json:"runtime"`
	}
	text, err := os.ReadFile(filepath.Join(n.Root, path))
	return err == nil && json.Unmarshal(text, &configuration) == nil && configuration.Runtime != ""
}

// killPause is how long processes may take to end before they are looked at again.
const killPause = 20 * time.Millisecond

// Kill ends all processes of a container, and returns when they have. It is no error if the
// container has ended already.
func (n Node) Kill(ctx context.Context, id string) error {
	group, err := freezer.Paths{Proc: filepath.Join(n.Root, "proc"), Cgroup: filepath.Join(n.Root, "sys/fs/cgroup")}.OfContainer(id)
	for {
		var pids []int
		if err == nil {
			pids, err = group.Processes()
		}
		if errors.Is(err, freezer.ErrNotFound) || err == nil && len(pids) == 0 {
			return nil
		}
		if err == nil {
			err = killAll(pids)
		}
		if err != nil {
			return fmt.Errorf("ending container %s: %w", id, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d processes of container %s to end: %w", len(pids), id, context.Cause(ctx))
		case <-time.After(killPause):
		}
	}
}

func killAll(pids []int) error {
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("ending process %d: %w", pid, err)
		}
	}
	return nil
}

// argumentOf returns the argument after a flag in /proc/PID/cmdline, "" if there is none.
func argumentOf(line []byte, flag string) string {
	arguments := bytes.Split(line, []byte{0})
	for i := range len(arguments) - 1 {
		if string(arguments[i]) == flag {
			return string(arguments[i+1])
		}
	}
	return ""
}
