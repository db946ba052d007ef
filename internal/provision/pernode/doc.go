// Package pernode is about provisioners that are deployed beside the driver on every
// node (--node-deployment), each for the volumes of its own node.
//
// A [Node] has the options and tells which claims are the node's. If a class binds
// immediately, no scheduler selects a node. Then all nodes with capacity compete for
// the claim: each waits for a random time ([Race]), and the first one writes its name
// to the claim's selected-node annotation ([Node.Select]).
package pernode
