package runc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/cpu"
	"github.com/holdfast-io/holdfast/internal/runtime/freezer"
)

// minCRIU is the oldest CRIU with which Kubernetes checkpoints.
const minCRIU = "3.16"

// A usage is what the processes of a container use that matters to a checkpoint.
type usage struct {
	private   int64            // bytes of anonymous memory, in RAM or swapped out
	shared    int64            // bytes of shared memory, counted for each process that has it
	segments  map[string]int64 // bytes of what is mapped shared, by device and inode
	processes []int
}

// memory returns how many bytes of memory the dump has at most. Shared memory is in it once,
// however many processes have it.
func (u *usage) memory() int64 {
	var segments int64
	for _, size := range u.segments {
		segments += size
	}
	return u.private + min(u.shared, segments)
}

// preflight checks everything about a container that can be known before it is frozen.
func preflight(t *target, options runtime.Options) (*usage, error) {
	state, err := t.cgroup.State()
	if err != nil {
		return nil, fmt.Errorf("reading the freezer of container %s: %w", t.Name, err)
	}
	if state != freezer.Thawed {
		return nil, runtime.WaitErrorf(runtime.Busy, "container %s is paused, or something else is checkpointing it; wait until it runs", t.Name)
	}
	processes, err := t.cgroup.Processes()
	if err != nil {
		return nil, fmt.Errorf("listing the processes of container %s: %w", t.Name, err)
	}
	if err := t.checkTree(processes); err != nil {
		return nil, err
	}
	u := &usage{processes: processes, segments: map[string]int64{}}
	sockets := map[string]bool{}
	for _, pid := range processes {
		if err := u.inspect(t, pid, sockets); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if !options.CloseTCP {
		if err := checkTCP(t, sockets); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// checkTree checks that all processes descend from the first one: CRIU saves that tree
// only and gives up on others in the control group, such as those of kubectl exec.
func (t *target) checkTree(processes []int) error {
	for _, pid := range processes {
		ancestor := pid
		for ancestor != t.pid {
			parent, err := parentOf(ancestor)
			if errors.Is(err, os.ErrNotExist) {
				break // It ended meanwhile.
			}
			if err != nil {
				return err
			}
			if !slices.Contains(processes, parent) {
				return runtime.WaitErrorf(runtime.Busy, "process %d (%s) of container %s was not started by the container but by kubectl exec or a probe; it cannot be checkpointed with it",
					pid, commandOf(pid), t.Name)
			}
			ancestor = parent
		}
	}
	return nil
}

func commandOf(pid int) string {
	text, err := os.ReadFile(procFile(pid, "comm"))
	if err != nil {
		return "it has ended"
	}
	return strings.TrimSpace(string(text))
}

// inspect adds a process.
func (u *usage) inspect(t *target, pid int, sockets map[string]bool) error {
	for name, sum := range map[string]*int64{"RssAnon": &u.private, "VmSwap": &u.private, "RssShmem": &u.shared} {
		bytes, err := statusBytes(pid, name)
		if err != nil {
			return err
		}
		*sum += bytes
	}
	if err := errors.Join(checkLimits(t, pid), u.addSegments(pid)); err != nil {
		return err
	}
	descriptors, err := os.ReadDir(procFile(pid, "fd"))
	if err != nil {
		return fmt.Errorf("listing the descriptors of process %d: %w", pid, err)
	}
	for _, descriptor := range descriptors {
		link, err := os.Readlink(filepath.Join(procFile(pid, "fd"), descriptor.Name()))
		if err != nil {
			continue // It was closed.
		}
		if link == "anon_inode:[io_uring]" {
			return runtime.Errorf(runtime.IOUring, "process %d (%s) of container %s uses io_uring, which CRIU cannot dump; turn it off in the program",
				pid, commandOf(pid), t.Name)
		}
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			sockets[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return nil
}

// checkLimits rejects a process whose limits CRIU may not read.
func checkLimits(t *target, pid int) error {
	err := unix.Prlimit(pid, unix.RLIMIT_CPU, nil, &unix.Rlimit{})
	switch {
	case errors.Is(err, unix.EPERM):
		return runtime.Errorf(runtime.RuntimeNotReady,
			"process %d (%s) of container %s is not root's, and CRIU cannot dump it without CAP_SYS_RESOURCE, which the node does not have: run the container as root, or permit the node that capability",
			pid, commandOf(pid), t.Name)
	case errors.Is(err, unix.ESRCH):
		return nil // It has ended.
	case err != nil:
		return fmt.Errorf("reading the limits of process %d: %w", pid, err)
	}
	return nil
}

// checkTCP rejects a container that has established TCP connections.
func checkTCP(t *target, sockets map[string]bool) error {
	for _, table := range []string{"net/tcp", "net/tcp6"} {
		text, err := os.ReadFile(procFile(t.pid, table))
		if errors.Is(err, os.ErrNotExist) {
			continue // without IPv6
		}
		if err != nil {
			return fmt.Errorf("reading the TCP connections of container %s: %w", t.Name, err)
		}
		if n := establishedOf(string(text), sockets); n > 0 {
			return runtime.Errorf(runtime.EstablishedTCP,
				"container %s has %d established TCP connections; close them, or allow the checkpoint to close them when it is restored", t.Name, n)
		}
	}
	return nil
}

// establishedOf counts the established connections of a table of /proc/net/tcp whose
// sockets are among those of a container: other containers of the pod are in the table, too.
func establishedOf(table string, sockets map[string]bool) int {
	const state, inode, established = 3, 9, "01"
	n := 0
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) > inode && fields[state] == established && sockets[fields[inode]] {
			n++
		}
	}
	return n
}

// checkDisk rejects a checkpoint for which a directory's file system has no room.
func checkDisk(dir string, needed int64) error {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return fmt.Errorf("reading the free space of %s: %w", dir, err)
	}
	if free := int64(stat.Bavail) * stat.Bsize; free < needed {
		return runtime.WaitErrorf(runtime.InsufficientNodeDisk,
			"the checkpoint takes up to %d MiB and %s on the node has %d MiB free; free disk space", needed>>20, dir, free>>20)
	}
	return nil
}

// probe finds out what the node can do.
func probe(ctx context.Context, maxMemory int64) (*runtime.Capability, error) {
	criu, err := versionOf(ctx, runtime.CRIUTooOld, "criu", `Version: (\S+)`)
	if err != nil {
		return nil, err
	}
	if older(criu, minCRIU) {
		return nil, runtime.Errorf(runtime.CRIUTooOld, "the node has CRIU %s; install %s or newer", criu, minCRIU)
	}
	oci, err := versionOf(ctx, runtime.RuntimeNotReady, "runc", `runc version (\S+)`)
	if err != nil {
		return nil, err
	}
	if out, err := run(ctx, "criu", "check"); err != nil {
		return nil, runtime.Errorf(runtime.RuntimeNotReady, "criu check fails on the node: %s", firstLine(errorLines(out), out))
	}
	capability := &runtime.Capability{OCIRuntime: "runc " + oci, CRIU: criu, Steps: []runtime.Step{runtime.Disk}, OneInstant: true, Volumes: true}
	describeNode(ctx, capability)
	if maxMemory > 0 {
		capability.Steps = slices.Insert(capability.Steps, 0, runtime.Tmpfs)
		if canScanPages() {
			capability.Steps = slices.Insert(capability.Steps, 0, runtime.FreezeCopy)
		}
	}
	return capability, nil
}

// describeNode adds what no step depends on.
func describeNode(ctx context.Context, capability *runtime.Capability) {
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		capability.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	capability.Architecture, capability.CPUFeatures = architecture, cpu.Features()
	capability.CgroupMode = "v1"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		capability.CgroupMode = "v2"
	}
	for _, runtime := range []struct{ name, pattern string }{
		{"containerd", `containerd \S+ v?(\d\S*)`}, {"crio", `crio version (\S+)`},
	} {
		if version, err := versionOf(ctx, "", runtime.name, runtime.pattern); err == nil {
			capability.Runtime = runtime.name + "://" + version
			return
		}
	}
}

// versionOf returns the version that a program of the node prints.
func versionOf(ctx context.Context, reason runtime.Reason, program, pattern string) (string, error) {
	out, err := run(ctx, program, "--version")
	if errors.Is(err, exec.ErrNotFound) {
		return "", runtime.Errorf(runtime.RuntimeNotReady, "the node has no %s in %s; install it", program, hostPath)
	}
	match := regexp.MustCompile(pattern).FindStringSubmatch(out)
	if err != nil || match == nil {
		return "", runtime.Errorf(reason, "%s --version on the node: %v: %s", program, err, strings.TrimSpace(out))
	}
	return match[1], nil
}

// run returns what a program of the node prints.
func run(ctx context.Context, program string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	return string(out), err
}

func firstLine(texts ...string) string {
	for _, text := range texts {
		for line := range strings.Lines(text) {
			return strings.TrimSpace(line)
		}
	}
	return "no output"
}

// older reports whether version a is older than b. Both are numbers with dots; what follows
// them does not count.
func older(a, b string) bool { return slices.Compare(numbers(a), numbers(b)) < 0 }

func numbers(version string) []int {
	var all []int
	for field := range strings.SplitSeq(version, ".") {
		digits := len(field) - len(strings.TrimLeft(field, "0123456789"))
		n, err := strconv.Atoi(field[:digits])
		if err != nil {
			break
		}
		all = append(all, n)
	}
	return all
}
