// Package kubelet is the engine that has the node's own kubelet checkpoint a container, with
// POST /checkpoint/NAMESPACE/POD/CONTAINER. It needs nothing on the node but the directory
// of the archives, and no right but to create nodes/checkpoint.
//
// The kubelet and the CRI runtime freeze a container for longer than the engine runc does,
// and one at a time. What they leave undone, the engine does:
//
//   - The kubelet finds a container by names only. The engine compares the pod's UID and the
//     container's ID in the archive with those that the caller means.
//   - A call that fails or is cancelled may leave the container frozen. The engine looks at
//     its control group after every call, and thaws it as a last resort.
//   - Archives stay on the node for ever, partial ones too. The journal has every call before
//     it is made, so that its archive is found and removed after the process has died.
//     Archives of others are never touched.
//   - A call is made once. A repetition would freeze the container again.
package kubelet
