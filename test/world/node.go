package world

import (
	"testing"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

// NodeKey is the topology key of the drivers of [World.AddNode].
const NodeKey = "topology.example.com/node"

// A Node is one of several on which the world's driver runs, each with storage of its
// own. Neither a machine nor a Node object exists: a csi-provisioner with
// --node-deployment needs neither.
type Node struct {
	*World
	// NodeName is the node's name, and the value of its driver's topology key.
	NodeName string
}

// AddNode adds a node to the world.
func (w *World) AddNode(t testing.TB, name string, o csitest.Options) *Node {
	t.Helper()
	o.Name, o.NodeID, o.Segments = w.Name, name, []map[string]string{{NodeKey: name}}
	driver := csitest.New(o)
	here := *w
	here.Driver, here.Socket = driver, driver.Serve(t)
	return &Node{World: &here, NodeName: name}
}

// StartProvisioner starts role csi-provisioner with --node-deployment for the node's
// driver.
func (n *Node) StartProvisioner(t testing.TB, args ...string) *Process {
	t.Helper()
	args = append([]string{"--node-deployment"}, args...)
	return startForTest(t, []string{"NODE_NAME=" + n.NodeName}, "csi-provisioner", n.ProvisionerArgs(args...))
}
