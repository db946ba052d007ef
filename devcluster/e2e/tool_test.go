// Package e2e tests the built program from outside, with real clusters.
package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// patience is how long any one thing may take on a slow and busy machine.
	patience = 4 * time.Minute
	pulse    = 100 * time.Millisecond
	nobody   = 65534
)

// A tool is the program as one user runs it.
type tool struct {
	binary string
	home   string // "" means the user's own, where the nodes' Debian tree is kept.
	user   *syscall.Credential
}

// asRoot is the program as nodes need it.
func asRoot(t *testing.T) tool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test starts nodes, which needs root; run it as root")
	}
	return tool{binary: binary(t)}
}

// asNobody is the program as a user without rights runs it, in a home of its own.
func asNobody(t *testing.T) tool {
	t.Helper()
	home, err := os.MkdirTemp("", "devcluster-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	u := tool{binary: publicBinary(t), home: home}
	if os.Geteuid() == 0 {
		u.user = &syscall.Credential{Uid: nobody, Gid: nobody}
		must(t, os.Chown(home, nobody, nobody))
	}
	return u
}

// public is the folder of a copy of the program: the checkout may lie where
// other users cannot look.
var public struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(public.dir)
	os.Exit(code)
}

func publicBinary(t *testing.T) string {
	t.Helper()
	file := binary(t)
	public.once.Do(func() {
		if public.dir, public.err = os.MkdirTemp("", "devcluster-e2e-"); public.err != nil {
			return
		}
		// A process of its own: a program is busy while anyone has it open for writing, and so would be
		// children that other tests start meanwhile.
		_, copied := output(exec.Command("cp", file, filepath.Join(public.dir, "devcluster")))
		public.err = errors.Join(copied, os.Chmod(public.dir, 0o755))
	})
	must(t, public.err)
	return filepath.Join(public.dir, "devcluster")
}

func binary(t *testing.T) string {
	t.Helper()
	file := os.Getenv("DEVCLUSTER")
	if file == "" {
		file = "../../bin/devcluster"
	}
	file, err := filepath.Abs(file)
	must(t, err)
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("the program is not built: %v; build it by: make devcluster, or set DEVCLUSTER", err)
	}
	return file
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// newName is a cluster's name that no other test has, in any process.
func newName() string { return "e2e-" + strings.ToLower(rand.Text()[:8]) }

// command prepares a call of the program.
func (u tool) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, u.binary, args...)
	cmd.Env = os.Environ()
	if u.home != "" {
		cmd.Env = append(cmd.Env, "DEVCLUSTER_HOME="+u.home, "HOME="+u.home)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: u.user}
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// run calls the program and returns what it wrote on standard output, and an
// error with what it wrote on standard error.
func (u tool) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return output(u.command(ctx, args...))
}

func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%q: %w: %s", cmd.Args[1:], err, stderr.String())
	}
	return stdout.String(), nil
}

// folder is where the cluster of that name lives.
func (u tool) folder(t *testing.T, name string) string {
	t.Helper()
	home := u.home
	if home == "" {
		home = os.Getenv("DEVCLUSTER_HOME")
	}
	if home == "" {
		cache, err := os.UserCacheDir()
		must(t, err)
		home = filepath.Join(cache, "holdfast", "devcluster")
	}
	return filepath.Join(home, "clusters", name)
}

// A cluster is one that a test has started, and the process that runs it.
type cluster struct {
	tool
	name       string
	kubeconfig string
	process    *exec.Cmd
	said       *recorder
	ended      chan struct{}
	err        error // of the process, once it has ended
}

// begin starts "devcluster up" and does not wait for the cluster.
func (u tool) begin(t *testing.T, args ...string) *cluster {
	t.Helper()
	c := &cluster{tool: u, name: newName(), said: &recorder{}, ended: make(chan struct{})}
	c.process = u.command(context.WithoutCancel(t.Context()), append([]string{"up", "--name", c.name}, args...)...)
	c.process.Stdout, c.process.Stderr = c.said, c.said
	must(t, c.process.Start())
	go func() {
		c.err = c.process.Wait()
		close(c.ended)
	}()
	t.Cleanup(func() { // Whatever the test did: nothing of it stays.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if _, err := output(u.command(ctx, "down", "--name", c.name)); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
		<-c.ended
		if t.Failed() {
			t.Logf("devcluster up said:\n%s", c.said)
		}
	})
	return c
}

// up starts a cluster and returns when it is ready.
func (u tool) up(t *testing.T, args ...string) *cluster {
	t.Helper()
	c := u.begin(t, args...)
	const announcement = "export KUBECONFIG="
	eventually(t, "the cluster is ready", func() error {
		select {
		case <-c.ended:
			t.Fatalf("up ended: %v: %s", c.err, c.said)
		default:
		}
		_, after, found := strings.Cut(c.said.String(), announcement)
		file, _, whole := strings.Cut(after, "\n")
		if !found || !whole {
			return errors.New(c.said.String())
		}
		c.kubeconfig = file
		return nil
	})
	return c
}

// kubectl runs kubectl, which is the program too, in the cluster.
func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.tryKubectl(t, args...)
	must(t, err)
	return out
}

func (c *cluster) tryKubectl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return c.run(t, append([]string{"kubectl", "--kubeconfig", c.kubeconfig}, args...)...)
}

// eventually looks until there is no error.
func eventually(t *testing.T, what string, look func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for {
		err := look()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waiting until %s: %v", what, err)
		case <-tick.C:
		}
	}
}

// await returns when the process that runs the cluster has ended, with how.
func (c *cluster) await(t *testing.T) error {
	t.Helper()
	eventually(t, "up ends", func() error {
		select {
		case <-c.ended:
			return nil
		default:
			return errors.New(c.said.String())
		}
	})
	return c.err
}

// A recorder keeps what a program writes, to be read while it runs.
type recorder struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}
