// Package checkpoint assigns Checkpoints to the nodes of their containers.
//
//	Checkpoint ──▶ target, policy, grant, agent found ──▶ assigned ──▶ the node's agent makes it
//	                                                      (status)
//
// The controller decides what a Checkpoint is about, once: node, UID of the pod,
// containers, storage and encryption. All of it is recorded in the status before the agent
// starts, so a policy or a pod that changes later does not change a Checkpoint that is
// being made. A finalizer is added before, because from then on there may be data to
// delete.
//
// The agents delete the data of deleted Checkpoints (package node). The controller only
// steps in when the node is gone: it assigns the deletion to another node where the store
// can be reached from there, and says what is left behind otherwise.
package checkpoint
