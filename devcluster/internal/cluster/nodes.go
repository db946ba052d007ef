package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/devcluster/internal/image"
	"github.com/holdfast-io/holdfast/devcluster/internal/network"
	"github.com/holdfast-io/holdfast/devcluster/internal/node"
)

// BusyboxImage is there on every node: a shell and the usual small programs.
const BusyboxImage = "devcluster.local/busybox:1"

// prepareNodes makes what nodes share: the Debian tree, the network and the
// first images. It needs root and says so.
func (c *Cluster) prepareNodes(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces and mounts need root: run this as root, or without --nodes")
	}
	if strings.ContainsAny(string(c.dir), `:,\`) {
		return fmt.Errorf("the path %s has a character that overlay mounts cannot take: set %s to one without colon, comma and backslash", c.dir, HomeVariable)
	}
	tree, err := c.findTree(ctx)
	if err != nil {
		return err
	}
	if err := os.Symlink(tree, c.dir.Tree()); err != nil {
		return fmt.Errorf("linking the tree: %w", err)
	}
	if c.network, err = network.New(network.NewPlan(c.slot.number), c.line, c.lock); err != nil {
		return err
	}
	c.address = c.network.Plan.Host().String()
	return writeImages(tree, c.dir.at("images"))
}

// findTree returns the Debian tree that all nodes of this machine share. It is
// made the first time.
func (c *Cluster) findTree(ctx context.Context) (string, error) {
	home, err := Home()
	if err != nil {
		return "", err
	}
	maker := node.TreeMaker{
		Cache: filepath.Join(home, "trees"), Log: c.dir.at("logs", "debootstrap.log"), Line: c.line, Tell: c.progress,
	}
	return maker.Tree(ctx)
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

func (c *Cluster) startNodes(ctx context.Context) error {
	began := time.Now()
	for i := 1; i <= c.options.Nodes; i++ {
		if err := c.startNode(i); err != nil {
			return fmt.Errorf("node %d cannot be started here: %w", i, err)
		}
	}
	for _, n := range c.nodes {
		if err := n.Boot(ctx); err != nil {
			return err
		}
		go c.watch(n)
	}
	for _, n := range c.nodes {
		if err := c.await(ctx, c.nodeReady(n)); err != nil {
			return fmt.Errorf("waiting for node %s: %w\nkubelet.log says last: %s\nkube-proxy.log says last: %s",
				n.Name, err, tail(n.Log("kubelet")), tail(n.Log("kube-proxy")))
		}
		c.progress("node %s ready (%.1f s), %s", n.Name, time.Since(began).Seconds(), n.Address)
	}
	return nil
}

// watch tells when a node ends. That is not the end of the cluster: clusters
// outlive their nodes, and a test may want to see it.
func (c *Cluster) watch(n *node.Node) {
	err := n.Wait()
	select {
	case <-c.stopping:
	default:
		c.progress("node %s ended: %v", n.Name, err)
	}
}

// startNode makes a node's namespaces and plugs it into the network.
func (c *Cluster) startNode(i int) error {
	name := fmt.Sprintf("%s-n%d", c.options.Name, i)
	spec := node.Spec{
		Name: name, Tree: c.dir.Tree(), State: c.dir.Node(name), Shared: c.dir.Shared(),
		Address: c.network.Plan.Node(i), Pods: c.network.Plan.Pods(i),
		Cgroup: filepath.Join(c.dir.cgroup(), name),
	}
	if err := makeCgroups(cgroupRoot, spec.Cgroup); err != nil {
		return err
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
