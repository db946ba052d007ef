package checkpoint

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

const (
	// criuConfig is the node's configuration of CRIU for runc.
	criuConfig = "/etc/criu/runc.conf"
	// criuHold is a script of CRIU, and a file beside it says at which of its steps it waits.
	criuHold = "/run/criu-hold"
	// restoreWorker is how the process of holdfast-runtime is called that restores.
	restoreWorker = "holdfast-runtime-restore"
)

// holdScript waits at a step of CRIU until it is killed.
const holdScript = `#!/bin/sh
if [ "$CRTOOLS_SCRIPT_ACTION" = "$(cat %[1]s.step)" ] && mv %[1]s.step %[1]s.waits; then exec sleep 1000; fi
`

// A kill is what is killed, and when.
type kill struct {
	step   string // of CRIU, as criu(8) calls them
	victim string
	signal unix.Signal
}

// kills are the rows of the test. The first one is the sample.
var kills = []kill{
	{"post-restore", "wrapper", unix.SIGKILL},
	{"pre-restore", "wrapper", unix.SIGKILL},
	{"setup-namespaces", "wrapper", unix.SIGKILL},
	{"post-resume", "wrapper", unix.SIGKILL},
	{"post-restore", "worker", unix.SIGKILL},
	{"post-resume", "worker", unix.SIGKILL},
	{"post-restore", "wrapper", unix.SIGTERM},
	{"post-restore", "runc", unix.SIGKILL},
	{"setup-namespaces", "criu", unix.SIGKILL},
	{"post-restore", "criu", unix.SIGKILL},
}

func (w *wrappedNode) testKilled(t *testing.T) {
	source := w.newPod(t, "source", "")
	c := source.running(t, 0)
	_, last := source.countsOn(t)
	dump := w.checkpoint(t, c, runtime.Options{})
	rows := kills
	if !*full {
		rows = rows[:1]
	}
	for i, row := range rows {
		t.Run(fmt.Sprintf("%s of the %s at %s", row.signal, row.victim, row.step), func(t *testing.T) {
			pod := w.newPod(t, fmt.Sprint("killed-", i), "c-k")
			pod.stage(t, dump)
			pod.kill(t, row)
			pod.issue(t, ticket.Restore, "c-k", "")
			pod.status(t, "runs", func(s corev1.ContainerStatus) bool { return s.State.Running != nil })
			pod.goesOn(t, last)
		})
	}
}

// kill lets a restore of the pod begin and kills one of its processes. Nothing of the
// container may be left then.
func (p *countingPod) kill(t *testing.T, row kill) {
	t.Helper()
	p.hold(t, row.step)
	p.issue(t, ticket.Restore, "c-k", "")
	waitFor(t, "CRIU is at "+row.step, func(context.Context) (bool, error) {
		_, err := os.Stat(p.path(criuHold + ".waits"))
		return err == nil, nil
	})
	restoring, id := p.restoring(t)
	if err := unix.Kill(restoring[row.victim], row.signal); err != nil {
		t.Fatalf("killing the %s of %v: %v", row.victim, restoring, err)
	}
	waitFor(t, "the outcome is recorded", func(context.Context) (bool, error) {
		outcome, err := p.place(t).Outcome()
		return err == nil && outcome.Error != "" && outcome.ContainerID == id, nil
	})
	if left := processesOf(t, id); len(left) > 0 {
		t.Errorf("these processes of the container are left: %q", left)
	}
	waitFor(t, "runc has forgotten the container", func(context.Context) (bool, error) {
		_, err := os.Stat(p.path(filepath.Join(runcRoot, id)))
		return os.IsNotExist(err), nil
	})
}

// hold lets CRIU wait at a step, once.
func (p *countingPod) hold(t *testing.T, step string) {
	t.Helper()
	for name, text := range map[string]string{
		criuHold: fmt.Sprintf(holdScript, criuHold), criuHold + ".step": step, criuConfig: "action-script " + criuHold + "\n",
	} {
		if err := os.MkdirAll(filepath.Dir(p.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.path(name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, name := range []string{criuHold, criuHold + ".step", criuHold + ".waits", criuConfig} {
			if err := os.RemoveAll(p.path(name)); err != nil {
				t.Error(err)
			}
		}
	})
}

// restoring returns the processes of this machine that restore a container of the node, by
// name, and the container's ID.
func (p *countingPod) restoring(t *testing.T) (map[string]int, string) {
	t.Helper()
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	for pid := range processes(t) {
		namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err != nil || namespace != own {
			continue // It has ended, or is another node's.
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !bytes.HasPrefix(line, []byte(restoreWorker)) {
			continue
		}
		words := bytes.Split(bytes.TrimRight(line, "\x00"), []byte{0})
		runc := childOf(t, pid, "runc")
		return map[string]int{
			"worker": pid, "wrapper": parentOf(pid), "runc": runc, "criu": childOf(t, runc, "criu"),
		}, string(words[len(words)-1])
	}
	t.Fatal("the node has no process that restores")
	return nil, ""
}

// processes returns the IDs of the processes of this machine.
func processes(t *testing.T) map[int]bool {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	all := map[int]bool{}
	for _, name := range names {
		pid, _ := strconv.Atoi(filepath.Base(name)) // The pattern has digits only.
		all[pid] = true
	}
	return all
}

// childOf returns the child of a process that executes a program.
func childOf(t *testing.T, parent int, program string) int {
	t.Helper()
	for pid := range processes(t) {
		executes, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil && filepath.Base(executes) == program && parentOf(pid) == parent {
			return pid
		}
	}
	t.Fatalf("process %d has no child that executes %s", parent, program)
	return 0
}

// parentOf returns the parent of a process, 0 if it has ended.
func parentOf(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return parent
}

// processesOf returns the command lines of the living processes in the control group of a
// container.
func processesOf(t *testing.T, id string) []string {
	t.Helper()
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range groups {
		text, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(text, []byte(id)) {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		if err == nil && len(line) > 0 { // A process that waits to be collected has no command line.
			all = append(all, string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))))
		}
	}
	return all
}
