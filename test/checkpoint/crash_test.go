package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/runc"
)

// agentArg is the argument with which this test program makes one checkpoint, as the
// agent does.
const agentArg = "checkpoint-agent"

// A task is what an agent process is to do.
type task struct {
	Config     runc.Config
	ID         string
	Containers []runtime.Container
	Options    runtime.Options
}

// agentMain makes one checkpoint and leaves it to whoever calls Recover.
func agentMain(text string) int {
	var task task
	err := json.Unmarshal([]byte(text), &task)
	if err == nil {
		var engine *runc.Engine
		if engine, err = runc.New(task.Config); err == nil {
			_, err = engine.Checkpoint(context.Background(), task.ID, task.Containers, task.Options)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// moments are the steps of a checkpoint, as they can be seen from outside.
var moments = []struct {
	name string
	seen func(*crash) bool
}{
	{"the request is written", func(c *crash) bool { return c.exists("request.json") }},
	{"the container is being prepared", func(c *crash) bool { return c.exists("0/criu.conf") }},
	{"the journal is written", func(c *crash) bool { return c.exists("journal.json") }},
	{"the container is frozen", func(c *crash) bool { return c.frozen() }},
	{"CRIU is at work", func(c *crash) bool { return c.exists("0/dump.log") && c.exists("journal.json") }},
	{"CRIU dumps the files of the container", func(c *crash) bool { return c.exists("*/checkpoint/files.img", "memory/0/checkpoint/files.img") }},
	{"CRIU has finished", func(c *crash) bool { return c.exists("0/stats-dump") }},
	{"the root file system is archived", func(c *crash) bool { return c.exists("0/rootfs-diff.tar") }},
	{"the result is written", func(c *crash) bool { return c.exists("result.json") }},
}

// A crash is one try to crash a checkpoint.
type crash struct {
	*node
	dir     string // of the checkpoint, as this machine sees it
	freezer string // file with the state of the container's freezer
}

func (c *crash) exists(patterns ...string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		names, err := filepath.Glob(filepath.Join(c.dir, pattern))
		return err == nil && len(names) > 0
	})
}

func (c *crash) frozen() bool {
	text, err := os.ReadFile(c.freezer)
	return err == nil && strings.TrimSpace(string(text)) != "THAWED"
}

// Whoever is killed with SIGKILL at whatever step: the container runs on with its memory
// intact, and nothing is left of the checkpoint unless it is complete.
func TestKill(t *testing.T) {
	for g, step := range []runtime.Step{runtime.FreezeCopy, runtime.Disk} {
		for v, victim := range []string{agentArg, workerArg, "criu"} {
			t.Run(fmt.Sprintf("%s is killed, %s", victim, step), func(t *testing.T) {
				n := newNode(t, nil)
				areas := []string{"a=private:64", "b=fork:16"}
				container := n.runWorkload(t, "workload", areas...)
				for i, moment := range moments {
					if !inSample(g+v, i, 3) {
						continue
					}
					t.Run(moment.name, func(t *testing.T) {
						c := &crash{node: n, dir: n.path(filepath.Join(n.state, fmt.Sprint("kill-", i))), freezer: n.freezerOf(t, container)}
						before := n.rounds(t, container)
						c.kill(t, victim, task{Config: n.config, ID: filepath.Base(c.dir), Containers: []runtime.Container{container},
							Options: runtime.Options{Fast: step != runtime.Disk}}, moment.seen)
						c.checkRecovered(t)
						n.waitRounds(t, container, areas, before, 2)
					})
				}
			})
		}
	}
}

// An agent that dies after it has discarded the last dump of a checkpoint, and before it has
// removed the rest, leaves nothing either.
func TestKillWhileDiscarding(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	container := n.runWorkload(t, "workload", "a=private:16")
	n.checkpoint(t, container, runtime.Options{Fast: true})
	dirs, err := filepath.Glob(n.path(n.state) + "/*")
	if err != nil || len(dirs) != 1 {
		t.Fatalf("the checkpoints are %q, %v", dirs, err)
	}
	for _, part := range []string{"0", "memory/0"} {
		if err := os.RemoveAll(filepath.Join(dirs[0], part)); err != nil {
			t.Fatal(err)
		}
	}
	next, err := runc.New(n.config)
	if err != nil {
		t.Fatal(err)
	}
	if complete, err := next.Recover(t.Context()); err != nil || len(complete) > 0 {
		t.Errorf("recovered are %v, %v", complete, err)
	}
	n.checkNothingLeft(t)
}

// freezerOf returns the file with the state of a container's freezer.
func (n *node) freezerOf(t testing.TB, c runtime.Container) string {
	t.Helper()
	var state struct {
		Paths map[string]string `json:"cgroup_paths"`
	}
	text, err := os.ReadFile(n.path("/run/containerd/runc/k8s.io/" + c.ID + "/state.json"))
	if err == nil {
		err = json.Unmarshal(text, &state)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n.path(filepath.Join(state.Paths["freezer"], "freezer.state"))
}

// kill runs an agent process that makes a checkpoint, and kills the victim when it sees the
// moment. A moment that has passed before it was seen is as good as none.
func (c *crash) kill(t *testing.T, victim string, task task, seen func(*crash) bool) {
	t.Helper()
	text, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	agent := exec.Command("/proc/self/exe", agentArg, string(text))
	var stderr bytes.Buffer
	agent.Stderr = &stderr
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- agent.Wait() }()
	for {
		select {
		case err := <-ended:
			t.Logf("the checkpoint ended first: %v: %s", err, stderr.String())
			return
		default:
		}
		if !seen(c) {
			continue
		}
		pids := []int{agent.Process.Pid}
		if victim != agentArg {
			pids = c.processes(t, victim)
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Fatal(err)
			}
		}
		if len(pids) > 0 {
			break
		}
	}
	err = <-ended
	t.Logf("the agent ended: %v: %s", err, stderr.String())
	if victim != agentArg && c.frozen() {
		t.Errorf("the container is frozen after the call has returned")
	}
}

// processes returns the processes of a kind that work on the checkpoint.
func (c *crash) processes(t *testing.T, kind string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	dir := filepath.Join(c.state, filepath.Base(c.dir)) // as the node sees it
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		arguments, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		environment, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		isWorker := strings.Contains(string(arguments), workerArg+"\x00dump\x00"+dir+"\x00")
		isCRIU := strings.HasPrefix(string(arguments), "criu\x00") && strings.Contains(string(environment), "="+dir+"\x00")
		if kind == workerArg && isWorker || kind == "criu" && isCRIU {
			pids = append(pids, pid)
		}
	}
	return pids
}

// checkRecovered has a new agent recover, and checks that nothing is frozen or left but
// complete checkpoints.
func (c *crash) checkRecovered(t *testing.T) {
	t.Helper()
	engine, err := runc.New(c.config)
	if err != nil {
		t.Fatal(err)
	}
	complete, err := engine.Recover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c.frozen() {
		t.Error("the container is frozen")
	}
	for id, dumps := range complete {
		if id != filepath.Base(c.dir) || len(dumps) != 1 {
			t.Errorf("checkpoint %s has %d dumps", id, len(dumps))
		}
		for _, d := range dumps {
			var names []string
			err := d.Files(t.Context(), true, func(f runtime.File) error {
				names = append(names, f.Name)
				return nil
			})
			if err != nil || !slices.Contains(names, "checkpoint/inventory.img") {
				t.Errorf("the complete checkpoint has %v, %v", names, err)
			}
			if err := d.Discard(); err != nil {
				t.Error(err)
			}
		}
	}
	c.checkNothingLeft(t)
}
