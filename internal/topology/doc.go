// Package topology handles CSI topology. A CSI driver divides the cluster into segments
// by labels of nodes; the CSINode object of each node has the keys of these labels.
package topology
