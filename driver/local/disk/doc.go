// Package disk works on image files and block devices: loop devices, filesystems,
// mounts, sparse and reflink copies, and freezing a filesystem while it is copied.
//
// It knows nothing about volumes or CSI. It reads the state of devices and mounts from
// the kernel each time, so that a restarted process knows as much as the one that
// died.
package disk
