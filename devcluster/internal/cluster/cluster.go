// Package cluster starts, watches and removes clusters.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"time"

	"github.com/holdfast-io/holdfast/devcluster/internal/lifeline"
	"github.com/holdfast-io/holdfast/devcluster/internal/network"
	"github.com/holdfast-io/holdfast/devcluster/internal/node"
	"github.com/holdfast-io/holdfast/devcluster/internal/pki"
)

// Options say what a cluster shall be.
type Options struct {
	// Name tells clusters apart; see CheckName.
	Name string
	// Nodes is how many nodes to start: 0 to network.MaxNodes. Nodes need root.
	Nodes int
	// APIOnly leaves out the controllers and the scheduler: whoever uses the
	// cluster plays them. Nodes need them.
	APIOnly bool
	// APIServerArgs are further flags of the API server.
	APIServerArgs []string
	// Progress receives a line for each step as it is done.
	Progress io.Writer
}

// A Cluster is one that this process started. It ends with the process.
type Cluster struct {
	options Options
	dir     Dir
	lock    *os.File
	slot    *slot
	line    *lifeline.Line

	address   string // of the API server
	network   *network.Network
	nodes     []*node.Node
	authority *pki.Authority
	etcd      pki.Pair
	toEtcd    pki.Pair
	serving   pki.Pair
	toKubelet pki.Pair
	accounts  pki.Pair
	admin     pki.Pair
	http      *http.Client

	children []child
	failed   chan error
	stopping chan struct{}
}

// Up starts a cluster and returns when it is ready: the API server answers, the
// controllers run, every node is Ready. What a dead cluster of the same name
// left is removed first. On an error nothing is left but logs; see Fail.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	c, err := claim(o)
	if err != nil {
		return nil, err
	}
	if err := c.up(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, errors.Join(err, c.Down())
		}
		return nil, c.Fail(err)
	}
	return c, nil
}

// claim takes the name for this process.
func claim(o Options) (*Cluster, error) {
	dir, err := DirOf(o.Name)
	if err != nil {
		return nil, err
	}
	if o.Nodes < 0 || o.Nodes > network.MaxNodes {
		return nil, fmt.Errorf("%d nodes: between 0 and %d are possible", o.Nodes, network.MaxNodes)
	}
	if o.APIOnly && o.Nodes > 0 {
		return nil, errors.New("nodes need the controllers: leave out one of --nodes and --api-only")
	}
	lock, err := dir.take()
	if err != nil {
		return nil, err
	}
	if err := sweep(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("removing what an earlier cluster %s left: %w", o.Name, err), lock.Close())
	}
	line, err := lifeline.New()
	if err := errors.Join(err, dir.ForgetLogs()); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &Cluster{
		options: o, dir: dir, lock: lock, line: line, address: "127.0.0.1",
		failed: make(chan error, 1), stopping: make(chan struct{}),
	}, nil
}

func (c *Cluster) up(ctx context.Context) (err error) {
	if err := c.makeDirs(); err != nil {
		return err
	}
	if c.slot, err = takeSlot(c.options.Nodes > 0); err != nil {
		return err
	}
	if c.options.Nodes > 0 {
		if err := c.prepareNodes(ctx); err != nil {
			return fmt.Errorf("nodes cannot be started here: %w", err)
		}
	}
	began := time.Now()
	if err := c.startControlPlane(ctx); err != nil {
		return err
	}
	c.progress("control plane ready (%.1f s), %s", time.Since(began).Seconds(), c.server())
	if err := c.startNodes(ctx); err != nil {
		return err
	}
	return os.WriteFile(c.dir.ready(), nil, 0o644)
}

func (c *Cluster) makeDirs() error {
	for _, dir := range []string{c.dir.at("logs"), c.dir.at("nodes"), c.dir.at("bin"), c.dir.Shared()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making the cluster's folder: %w", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	if err := os.Symlink(self, c.dir.at("bin", "kubectl")); err != nil {
		return fmt.Errorf("linking kubectl: %w", err)
	}
	return nil
}

// Dir is the cluster's folder.
func (c *Cluster) Dir() Dir { return c.dir }

// Failed yields the reason when a component ends that should not.
func (c *Cluster) Failed() <-chan error { return c.failed }

func (c *Cluster) fail(err error) {
	select {
	case <-c.stopping:
	case c.failed <- err:
	default: // The first failure is the one that explains the others.
	}
}

// Down ends every process of the cluster and removes all that it made.
func (c *Cluster) Down() error {
	return errors.Join(c.stop(), c.remove())
}

// Fail is Down for a cluster that failed because of cause, which is part of
// the error. Its logs are kept and the error says where.
func (c *Cluster) Fail(cause error) error {
	err := c.stop()
	kept, keepErr := c.dir.keepLogs()
	if kept != "" {
		cause = fmt.Errorf("%w\nthe logs are in %s", cause, kept)
	}
	return errors.Join(cause, err, keepErr, c.remove())
}

func (c *Cluster) stop() error {
	close(c.stopping)
	var errs []error
	if err := os.Remove(c.dir.ready()); !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, n := range c.nodes {
		errs = append(errs, n.Stop())
	}
	for _, child := range c.children {
		child.stop()
	}
	c.line.Cut()
	if c.network != nil {
		errs = append(errs, c.network.Close())
	}
	if c.slot != nil {
		errs = append(errs, c.slot.held.Close())
	}
	return errors.Join(errs...)
}

func (c *Cluster) remove() error {
	if err := sweep(c.dir); err != nil {
		return errors.Join(err, c.lock.Close()) // The lock's file reminds the next sweep.
	}
	return c.dir.unlock(c.lock)
}

func (c *Cluster) progress(format string, args ...any) {
	fmt.Fprintf(c.options.Progress, "devcluster: "+format+"\n", args...)
}
