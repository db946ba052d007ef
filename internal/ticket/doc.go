// Package ticket is what the agent of a node and the OCI runtime wrapper (cmd/holdfast-runtime)
// tell each other about restores, in files of a directory that only root can enter:
//
//	POD-UID/CONTAINER/
//	  ticket.json     the agent's decision about the next start of the container
//	  claimed.json    the ticket, once the wrapper has taken it: it is used only once
//	  outcome.json    what the wrapper has made of it
//	  progress        how far the agent is, while there is no ticket yet; for people
//	  criu/           CRIU's log and what it mounts, while it restores
//	  data/           the files of the checkpoint, with the layout of checkpointctl
//	POD-UID/.volumes/
//	  NAME.tar        the files of a volume that are to be put back
//	  NAME.tar.done   the same when they are: several containers may use the volume
//	  ipc             a link that says with which container the pod's System V objects are restored
//
// A container whose pod asks for a restore starts only by a ticket. Without one the wrapper
// waits, and then fails: the kubelet tries again. A ticket says either that the container is
// restored, that it starts afresh, or that it must not start.
//
// The wrapper holds a lock on the ticket that it has claimed. One that is claimed, has no
// outcome and is not locked is that of a wrapper that died: the agent issues it anew. A
// container with a claimed ticket must not start without another one.
//
// The wrapper starts with each container of the node, so this package imports nothing but
// small packages.
package ticket
