// Package retention deletes the expired Checkpoints of CheckpointPolicies.
//
//	policy, its Checkpoints ──▶ expired ones ──▶ read again from the API server ──▶ deleted
//	(cache)                     (decide)         (decide)                           (agent: data,
//	                                                                                 finalizer)
//
// A policy limits the ready Checkpoints of each workload, over all namespaces that the
// operator serves. The newest ready ones are kept. What is not ready, or is being deleted,
// neither counts nor is deleted.
//
// The cache is only a hint: it may show a newer Checkpoint that a user has just deleted, and
// without that one the older is the last. So the policy and its Checkpoints are read from
// the API server before anything is deleted, and each deletion has the UID and the
// resourceVersion that were read as its preconditions.
package retention
