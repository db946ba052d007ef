// Package restore restores the pods of a node from Checkpoints. It is a part of the agent.
//
// A pod asks for it with an annotation. The agent looks the Checkpoint up, compares it with
// the pod and the node, fetches and verifies its data, and issues a ticket for each container
// (package ticket): the OCI runtime wrapper restores a container that starts with one.
//
//	asked ──▶ checked ──▶ fetched ──▶ ticket issued ──▶ container stopped, ──▶ restored
//	          (nothing is touched)                      if it runs              (condition)
//
// A running container is stopped only when everything that its restore needs is on the node.
// What becomes of the request is in the condition Restored of the pod, and the value of the
// annotation in another one, in the same write: the same value does not restore twice.
//
// Tickets, claimed ones and outcomes on the node's disk are the state: after a restart the
// agent goes on from them.
package restore
