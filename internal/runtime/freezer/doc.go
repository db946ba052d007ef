// Package freezer freezes and thaws the processes of a control group, with the freezer of
// control groups of version 1 or 2, and finds the control group of a container.
//
// The checkpoint engines use it to freeze several containers at one instant, and to find
// and thaw those that CRIU, the OCI runtime or a process that died has left frozen: the
// kubelet reports such a container as Running.
package freezer
