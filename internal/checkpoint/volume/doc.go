// Package volume mounts the volumes of Checkpoints with the backend pvc.
//
// An agent cannot mount a claim. So a pod of the Checkpoint mounts it on the node: the
// kubelet does the rest, with any CSI driver, and the agent writes through the directory
// that the kubelet has for the pod's volume. The pod has no permissions and does nothing
// but wait. It exists while the Checkpoint is made, and while its data are deleted from a
// claim that stays. For a restore the agent of the other pod's node asks for one more, by the
// status, until the outcome of the restore is on record.
//
// The package has no cache of pods and claims, which would be those of the whole cluster:
// it reads the ones that a status names, and polls while it waits for them.
//
// A Checkpoint passes through these states:
//
//	assigned   the names of claim and pod are recorded, then both are created
//	mounted    the pod runs: its UID is recorded, and the agent starts
//	complete   the pod is deleted; a claim from a template, too, if the Checkpoint has failed
//	deleted    a claim from a template is deleted when the agent has removed the finalizer of
//	           the data; for another claim, a pod mounts it until the agent has done so
package volume
