// Package runtime is the port to what can checkpoint the containers of a node.
//
// An [Engine] checkpoints running containers: it freezes them, dumps their memory and
// state with CRIU, and lets them run again. The engines are in packages of their own:
//
//	runc      calls runc and CRIU of the node directly; the container is frozen for the
//	          shortest time
//	kubelet   calls POST /checkpoint of the node's kubelet; needs nothing but the right
//	          to create nodes/checkpoint
//
// An engine never leaves a container frozen: what it is going to freeze is in a journal
// on disk before it freezes anything, and [Engine.Recover] thaws what a process that has
// died left behind.
//
// Package runtimetest has a fake engine, and the contract that every engine passes.
package runtime
