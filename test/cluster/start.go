package cluster

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// clusters are shared by the tests of this process.
var clusters pool

// A pool starts clusters when tests need them.
type pool struct {
	mu      sync.Mutex
	started []*runningCluster
}

// runningCluster is a cluster that is up.
type runningCluster struct {
	name       string
	kubeconfig string
	has        needs
	stdin      io.Closer // The cluster goes down when it is closed.
	output     *output
	ended      atomic.Bool
	gone       chan struct{} // closed when it has ended
}

// get returns a cluster with at least that many nodes and exactly those flags.
func (p *pool) get(want needs) (*runningCluster, error) {
	name, kubeconfig := os.Getenv("DEVCLUSTER_NAME"), os.Getenv("KUBECONFIG")
	if name != "" && kubeconfig != "" && len(want.apiServerArgs) == 0 {
		return &runningCluster{name: name, kubeconfig: kubeconfig}, nil
	}
	p.mu.Lock() // Other tests wait for the same cluster.
	defer p.mu.Unlock()
	for _, r := range p.started {
		if r.ended.Load() {
			return nil, fmt.Errorf("cluster %s ended while tests were using it:\n%s", r.name, r.output)
		}
		if r.has.nodes >= want.nodes && slices.Equal(r.has.apiServerArgs, want.apiServerArgs) {
			return r, nil
		}
	}
	r, err := start(fmt.Sprintf("test-%d-%d", os.Getpid(), len(p.started)+1), want.flags()...)
	if err != nil {
		return nil, err
	}
	r.has = want
	p.started = append(p.started, r)
	return r, nil
}

// start runs "devcluster up" and returns when the cluster is ready. Only this process
// has the other end of the child's stdin, so the cluster stops when this process ends,
// even if it is killed.
func start(name string, flags ...string) (*runningCluster, error) {
	binary, err := Binary()
	if err != nil {
		return nil, err
	}
	r := &runningCluster{name: name, output: &output{}, gone: make(chan struct{})}
	cmd := exec.Command(binary, append([]string{"up", "--until-eof", "--name", name}, flags...)...)
	cmd.Stderr = r.output
	if r.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting a cluster: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting a cluster: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a cluster: %w", err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("starting a cluster with %q: %w:\n%s", flags, errors.Join(cmd.Wait(), ignoreEOF(err)), r.output)
	}
	r.kubeconfig = strings.TrimPrefix(strings.TrimSpace(line), "export KUBECONFIG=")
	go func() {
		_ = cmd.Wait() // Its output says more than its exit code.
		r.ended.Store(true)
		close(r.gone)
	}()
	return r, nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Binary returns the devcluster program: $DEVCLUSTER, or bin/devcluster of this
// module.
func Binary() (string, error) {
	if binary := os.Getenv("DEVCLUSTER"); binary != "" {
		if _, err := os.Stat(binary); err != nil {
			return "", fmt.Errorf("looking for the program in $DEVCLUSTER: %w", err)
		}
		return binary, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(root, "bin", "devcluster")
	if _, err := os.Stat(binary); err != nil {
		return "", fmt.Errorf("tests need devcluster, which is not built; run: make devcluster (%w)", err)
	}
	return binary, nil
}

// moduleRoot returns the nearest parent folder with a go.mod: tests run in their
// package's folder.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the module: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("finding the module: no folder above has a go.mod; run the tests from their checkout")
		}
		dir = parent
	}
}

// output collects the output of a program while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
