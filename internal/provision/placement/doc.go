// Package placement computes where in the driver's topology a new volume may be: the
// TopologyRequirement of a CreateVolume request (CSI spec, CreateVolume) from a claim's
// class, its selected node and the nodes of the cluster.
//
// [Requirement] has the rules. A [Cache] has the topology of the nodes, as the manager's
// cache shows it.
package placement
