// Package node is the checkpoint agent of a node. It makes, stores and deletes the
// Checkpoints that the operator (package checkpoint) has assigned to its node.
//
//	assigned ──▶ attempt recorded ──▶ dumped ──▶ stored ──▶ read back ──▶ Ready
//	             (status)             (node)     (store)                  (status)
//
// Each attempt is recorded in the status before a container is frozen. What was dumped is
// on the node until it is stored and verified, so after a crash the agent goes on with
// what the engine has recovered ([runtime.Engine.Recover]), and only starts again if that
// is nothing. The key of an archive in its store is derived from the UID of the
// Checkpoint: a successor finds and replaces what an interrupted upload has left.
//
// A failure that may pass is retried: a dump up to a number of attempts, an upload until a
// deadline, because the moment that was dumped does not come back. Whatever happens, the
// Checkpoint ends Ready or Failed, and nothing stays on the node.
package node
