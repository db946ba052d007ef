// Package stage brings volumes to workloads on this machine and takes them back:
// image → loop device → filesystem at the staging path → bind mounts at the
// target paths, or for raw block volumes image → loop device → bind mounts of
// its node.
//
// Each call may be repeated, after a crash in the middle of the last one too. What
// is attached and mounted is asked of the kernel; what was promised about a
// place is on record in the store.
package stage
