package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-io/holdfast/devcluster/internal/image"
	"github.com/holdfast-io/holdfast/devcluster/internal/network"
	"github.com/holdfast-io/holdfast/devcluster/internal/node"
)

// BusyboxImage is there on every node: a shell and the usual small programs.
const BusyboxImage = "devcluster.local/busybox:1"

// prepareNodes makes what nodes share: the Debian tree, the network and the
// first images. It needs root and says so.
func (c *Cluster) prepareNodes() (string, error) {
	if os.Geteuid() != 0 {
		return "", errors.New("namespaces and mounts need root: run this as root, or without --nodes")
	}
	log, err := os.Create(c.dir.at("logs", "debootstrap.log"))
	if err != nil {
		return "", fmt.Errorf("opening the log of debootstrap: %w", err)
	}
	defer log.Close()
	began := time.Now()
	tree, err := Tree(log, func() { c.progress("making a Debian tree for nodes: a minute, the first time") })
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, tail(log.Name()))
	}
	c.progress("node tree ready (%.1f s), %s", time.Since(began).Seconds(), tree)
	if c.network, err = network.New(network.NewPlan(c.slot.number), c.line, c.lock); err != nil {
		return "", err
	}
	c.address = c.network.Plan.Host().String()
	return tree, writeImages(tree, c.dir.at("images"))
}

// Tree returns the Debian tree that all nodes of this machine share; see node.Tree.
func Tree(log io.Writer, making func()) (string, error) {
	home, err := Home()
	if err != nil {
		return "", err
	}
	return node.Tree(filepath.Join(home, "trees"), log, making)
}

// writeImages builds the images that every node starts with.
func writeImages(tree, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the folder of images: %w", err)
	}
	busybox := image.Spec{
		Name:       BusyboxImage,
		Files:      map[string]string{"/bin/busybox": filepath.Join(tree, "usr/bin/busybox")},
		Links:      map[string]string{},
		Entrypoint: []string{"/bin/sh"},
	}
	for _, applet := range []string{
		"sh", "cat", "cp", "date", "dd", "df", "du", "echo", "grep", "head", "httpd", "kill", "ls", "md5sum", "mkdir", "mount", "mv", "nc",
		"od", "ps", "rm", "sha256sum", "sleep", "stat", "sync", "tail", "test", "touch", "tr", "true", "umount", "wc", "wget",
	} {
		busybox.Links["/bin/"+applet] = "busybox"
	}
	pause := busybox
	pause.Name, pause.Entrypoint = node.PauseImage, []string{"/bin/sleep", "2147483647"}
	for file, spec := range map[string]image.Spec{"busybox.tar": busybox, "pause.tar": pause} {
		if err := image.Write(spec, filepath.Join(dir, file)); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) startNodes(ctx context.Context, tree string) error {
	began := time.Now()
	for i := 1; i <= c.options.Nodes; i++ {
		if err := c.startNode(i, tree); err != nil {
			return fmt.Errorf("node %d cannot be started here: %w", i, err)
		}
	}
	for _, n := range c.nodes {
		if err := n.Boot(); err != nil {
			return fmt.Errorf("%w (its logs: %s)", err, filepath.Join(n.Var(), "log"))
		}
	}
	for _, n := range c.nodes {
		if err := c.await(ctx, c.nodeReady(n.Name)); err != nil {
			return fmt.Errorf("waiting for node %s: %w: %s", n.Name, err, tail(filepath.Join(n.Var(), "log", "kubelet.log")))
		}
		c.progress("node %s ready (%.1f s), %s", n.Name, time.Since(began).Seconds(), n.Address)
	}
	return nil
}

// startNode makes a node's namespaces and plugs it into the network.
func (c *Cluster) startNode(i int, tree string) error {
	name := fmt.Sprintf("%s-n%d", c.options.Name, i)
	spec := node.Spec{
		Name: name, Tree: tree, State: c.dir.Node(name),
		Address: c.network.Plan.Node(i), Pods: c.network.Plan.Pods(i),
		Cgroup: cgroupOf(c.dir, name),
	}
	if err := os.MkdirAll(spec.Files(), 0o755); err != nil {
		return fmt.Errorf("making the node's folder: %w", err)
	}
	if err := c.writeNodeFiles(spec); err != nil {
		return err
	}
	n, err := node.Start(spec, c.line, c.lock)
	if n != nil {
		c.nodes = append(c.nodes, n)
	}
	if err != nil {
		return err
	}
	return c.network.AddNode(i, n.PID())
}

// writeNodeFiles fills the folder that the node sees as node.FilesAt.
func (c *Cluster) writeNodeFiles(spec node.Spec) error {
	if err := node.WriteConfig(spec); err != nil {
		return err
	}
	serving, err := c.authority.Server("kubelet-"+spec.Name, spec.Name, spec.Name, spec.Address.String())
	if err != nil {
		return err
	}
	copies := map[string]string{
		"ca.crt":      c.authority.CertFile(),
		"kubelet.crt": serving.CertFile,
		"kubelet.key": serving.KeyFile,
		"busybox.tar": c.dir.at("images", "busybox.tar"),
		"pause.tar":   c.dir.at("images", "pause.tar"),
	}
	for name, from := range copies {
		if err := os.Link(from, filepath.Join(spec.Files(), name)); err != nil {
			return fmt.Errorf("giving the node %s: %w", name, err)
		}
	}
	if _, err := c.kubeconfig(filepath.Join(spec.Files(), "kubelet.kubeconfig"), "system:node:"+spec.Name, "system:nodes"); err != nil {
		return err
	}
	_, err = c.kubeconfig(filepath.Join(spec.Files(), "kube-proxy.kubeconfig"), "system:kube-proxy")
	return err
}
