// Package topology is about where volumes can be. A CSI driver divides the
// cluster into segments by labels of nodes; the CSINode of each node says which
// labels these are.
package topology
