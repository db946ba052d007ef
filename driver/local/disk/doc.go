// Package disk does the driver's work on image files and block devices: loop
// devices, filesystems, mounts, copies that share or skip what they can, and
// holding a filesystem still while it is copied.
//
// It knows nothing of volumes or of CSI. Whatever it reports about devices and
// mounts is asked of the kernel each time, so that a restarted process knows
// as much as the one that died.
package disk
