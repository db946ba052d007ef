// Package wrapper is the program holdfast-runtime, which the CRI runtime of a node calls in
// the place of an OCI runtime such as runc or crun.
//
//   - create of a container for which the agent has issued a ticket to restore (see package
//     ticket) applies the changes to the root file system and runs the real runtime's restore.
//   - start of such a container succeeds: it runs already. Until then, state says "created".
//   - Everything else is executed by the real runtime, in the place of this process.
//
// Containers that nobody has asked to restore start whatever the state of the agent, of the
// configuration and of the directory of tickets. The program starts with each container of
// the node, so it imports only the standard library, golang.org/x/sys and package ticket.
package wrapper
