package kubelet

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/runtimetest"
)

// childEnv has what a process of [TestMain] checkpoints, until it is killed.
const childEnv = "HOLDFAST_TEST_KUBELET_CHECKPOINT"

type child struct {
	Address, Root, ID string
	Container         runtime.Container
}

func TestMain(m *testing.M) {
	text := os.Getenv(childEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		panic(err)
	}
	engine, err := New(optionsFor(c.Address, c.Root))
	if err != nil {
		panic(err)
	}
	_, err = engine.Checkpoint(context.Background(), c.ID, []runtime.Container{c.Container}, runtime.Options{})
	panic(fmt.Sprintf("the process was not killed: %v", err))
}

// A fakeNode is a node with a kubelet that has a certificate of its own, and files for
// containers and control groups.
type fakeNode struct {
	t       *testing.T
	root    string // of the node's file system
	options Options
	server  *httptest.Server

	mu         sync.Mutex
	containers map[string]runtime.Container // by namespace/pod/name
	inDump     map[string]func(context.Context, *fakeDump) error
	calls      int
}

// A fakeDump is a call in progress. It has written half of its archive when it runs what the
// test wants it to.
type fakeDump struct {
	container runtime.Container
	// respond replaces the answer.
	respond func(http.ResponseWriter)
	after   func(context.Context)
}

const foreignArchive = "checkpoint-web_default-main-2020-01-01T00:00:00Z.tar"

func newFakeNode(t *testing.T) *fakeNode {
	t.Helper()
	n := &fakeNode{
		t: t, root: t.TempDir(), containers: map[string]runtime.Container{},
		inDump: map[string]func(context.Context, *fakeDump) error{},
	}
	for _, dir := range []string{"sys/fs/cgroup/freezer", "sys/fs/cgroup/memory", "proc", "tmp", "run", "var/lib/kubelet/checkpoints"} {
		if err := os.MkdirAll(filepath.Join(n.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.write("var/lib/kubelet/checkpoints/"+foreignArchive, "somebody else's")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(n.root, "var/lib/kubelet/checkpoints", foreignArchive), old, old); err != nil {
		t.Fatal(err)
	}
	n.write("token", "secret-token\n")
	n.server = httptest.NewTLSServer(n)
	n.options = optionsFor(n.server.Listener.Addr().String(), n.root)
	t.Cleanup(func() {
		n.server.CloseClientConnections()
		n.server.Close()
		text, err := os.ReadFile(filepath.Join(n.root, "var/lib/kubelet/checkpoints", foreignArchive))
		if string(text) != "somebody else's" || err != nil {
			t.Errorf("the archive of somebody else is %q, %v", text, err)
		}
	})
	return n
}

func optionsFor(address, root string) Options {
	return Options{
		Address: address, StateDir: filepath.Join(root, "state"), TokenFile: filepath.Join(root, "token"), Root: root,
	}
}

func (n *fakeNode) write(name, text string) {
	n.t.Helper()
	path := filepath.Join(n.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Error(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		n.t.Error(err)
	}
}

func (n *fakeNode) engine() *Engine {
	n.t.Helper()
	engine, err := New(n.options)
	if err != nil {
		n.t.Fatal(err)
	}
	engine.times.grace, engine.times.quiet = 50*time.Millisecond, 200*time.Millisecond
	return engine
}

func (n *fakeNode) Engine() runtime.Engine { return n.engine() }

func group(c runtime.Container) string { return "sys/fs/cgroup/freezer/kubepods/" + c.ID }

func (n *fakeNode) Start(pod, name string) runtime.Container {
	fake := runtimetest.NewFake(n.t.TempDir())
	c, err := fake.Start(pod, name)
	if err != nil {
		n.t.Error(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, other := range n.containers {
		if other.Pod == pod {
			c.PodUID = other.PodUID
		}
	}
	n.start(c)
	return c
}

func (n *fakeNode) start(c runtime.Container) {
	n.containers[key(c)] = c
	n.write(group(c)+"/freezer.state", "THAWED\n")
	n.write(group(c)+"/cgroup.procs", "")
	n.write("sys/fs/cgroup/memory/kubepods/"+c.ID+"/memory.stat", "cache 1\ntotal_rss 4096\ntotal_shmem 4096\n")
}

func (n *fakeNode) Stop(c runtime.Container) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.containers, key(c))
	if err := os.RemoveAll(filepath.Join(n.root, group(c))); err != nil {
		n.t.Error(err)
	}
}

func (n *fakeNode) Replace(c runtime.Container) { n.replace(c) }

func (n *fakeNode) replace(c runtime.Container) runtime.Container {
	n.Stop(c)
	c.PodUID = "11111111" + c.PodUID[8:]
	c.ID = strings.Repeat("1", 16) + c.ID[16:]
	n.mu.Lock()
	defer n.mu.Unlock()
	n.start(c)
	return c
}

func (n *fakeNode) IsFrozen(c runtime.Container) bool {
	state, err := os.ReadFile(filepath.Join(n.root, group(c), "freezer.state"))
	return err == nil && strings.TrimSpace(string(state)) != "THAWED"
}

func (n *fakeNode) Left() []string {
	var left []string
	for _, pattern := range []string{"state/journal/*", "var/lib/kubelet/checkpoints/*"} {
		paths, err := filepath.Glob(filepath.Join(n.root, pattern))
		if err != nil {
			n.t.Error(err)
		}
		left = append(left, paths...)
	}
	return slices.DeleteFunc(left, func(path string) bool { return filepath.Base(path) == foreignArchive })
}

func (n *fakeNode) Events() []runtimetest.Event {
	n.t.Error("the engine says that it checkpoints several containers at one instant")
	return nil
}

// nextDump runs what once, in the middle of the next dump of a container.
func (n *fakeNode) nextDump(c runtime.Container, what func(context.Context, *fakeDump) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inDump[key(c)] = what
}

func (n *fakeNode) FailDump(c runtime.Container) {
	n.nextDump(c, func(context.Context, *fakeDump) error { return errors.New("the disk has a bad sector") })
}

func (n *fakeNode) HoldDump(c runtime.Container) (<-chan struct{}, func()) {
	started, released := make(chan struct{}), make(chan struct{})
	n.nextDump(c, func(ctx context.Context, _ *fakeDump) error {
		close(started)
		select {
		case <-released:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return started, sync.OnceFunc(func() { close(released) })
}

func (n *fakeNode) ReplaceInDump(c runtime.Container) {
	n.nextDump(c, func(_ context.Context, d *fakeDump) error {
		d.container = n.replace(c)
		return nil
	})
}

// Die kills a process of this test while the kubelet works for it.
func (n *fakeNode) Die(at runtimetest.Point, id string, containers ...runtime.Container) {
	n.t.Helper()
	reached := make(chan struct{})
	wait := func(ctx context.Context) { close(reached); <-ctx.Done() }
	n.nextDump(containers[0], func(ctx context.Context, d *fakeDump) error {
		if at == runtimetest.After {
			d.after = wait
			return nil
		}
		if at == runtimetest.Frozen {
			for _, path := range n.Left() {
				if filepath.Ext(path) == ".tar" {
					if err := os.Remove(path); err != nil {
						n.t.Error(err)
					}
				}
			}
		}
		wait(ctx)
		return ctx.Err()
	})
	text, err := json.Marshal(child{n.options.Address, n.root, id, containers[0]})
	if err != nil {
		n.t.Fatal(err)
	}
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), childEnv+"="+string(text))
	process.Stderr = os.Stderr
	if err := process.Start(); err != nil {
		n.t.Fatal(err)
	}
	<-reached
	if err := process.Process.Kill(); err != nil {
		n.t.Error(err)
	}
	_ = process.Wait() // says that it was killed
}

// ServeHTTP is the kubelet, with containerd behind it.
func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	if r.Method != http.MethodPost || len(parts) != 5 || parts[1] != "checkpoint" {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	if r.Header.Get("Authorization") != "Bearer secret-token" {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	n.mu.Lock()
	n.calls++
	c, ok := n.containers[strings.Join(parts[2:], "/")]
	what := n.inDump[key(c)]
	delete(n.inDump, key(c))
	n.mu.Unlock()
	if !ok {
		http.Error(w, "pod does not exist", http.StatusNotFound)
		return
	}
	d := &fakeDump{container: c}
	name, err := n.dump(r.Context(), d, what)
	switch {
	case d.respond != nil:
		d.respond(w)
	case err != nil:
		http.Error(w, fmt.Sprintf("checkpointing of %s failed (%v)", key(c), err), http.StatusInternalServerError)
	default:
		fmt.Fprintf(w, `{"items":[%q]}`, "/var/lib/kubelet/checkpoints/"+name)
	}
}

// dump writes an archive. As containerd, it leaves the container frozen and the archive
// incomplete if it fails.
func (n *fakeNode) dump(ctx context.Context, d *fakeDump, what func(context.Context, *fakeDump) error) (string, error) {
	c := d.container
	n.write(group(c)+"/freezer.state", "FROZEN\n")
	name := fmt.Sprintf("checkpoint-%s_%s-%s-%s.tar", c.Pod, c.Namespace, c.Name, time.Now().Format(time.RFC3339))
	path := filepath.Join(n.root, "var/lib/kubelet/checkpoints", name)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		n.t.Errorf("two calls have the same name: %v", err)
		return "", err
	}
	defer file.Close()
	if _, err := file.Write(make([]byte, 300)); err != nil {
		return "", err
	}
	if what != nil {
		if err := what(ctx, d); err != nil {
			return "", err
		}
	}
	if err := writeArchive(n.t.TempDir(), file, d.container); err != nil {
		return "", err
	}
	for _, c := range []runtime.Container{c, d.container} {
		if _, err := os.Stat(filepath.Join(n.root, group(c))); err == nil {
			n.write(group(c)+"/freezer.state", "THAWED\n")
		}
	}
	if d.after != nil {
		d.after(ctx)
	}
	return name, nil
}

// writeArchive replaces the content of a file by the archive of a container.
func writeArchive(dir string, file *os.File, c runtime.Container) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	fake := runtimetest.NewFake(dir)
	if _, err := fake.StartContainer(c); err != nil {
		return err
	}
	dumps, err := fake.Engine().Checkpoint(context.Background(), "x", []runtime.Container{c}, runtime.Options{})
	if err != nil {
		return err
	}
	archive := tar.NewWriter(file)
	if err := archive.WriteHeader(&tar.Header{Name: "./checkpoint/", Typeflag: tar.TypeDir, Mode: 0o700}); err != nil {
		return err
	}
	err = dumps[0].Files(context.Background(), false, func(f runtime.File) error {
		if err := archive.WriteHeader(&tar.Header{Name: "./" + f.Name, Typeflag: tar.TypeReg, Mode: 0o600, Size: f.Size}); err != nil {
			return err
		}
		_, err := io.Copy(archive, f)
		return err
	})
	if err != nil {
		return err
	}
	return archive.Close()
}

func TestContract(t *testing.T) {
	t.Parallel()
	runtimetest.Run(t, func(t *testing.T) runtimetest.Node { return newFakeNode(t) })
}
