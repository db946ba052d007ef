// Package stage stages and publishes volumes on this machine and undoes it: image →
// loop device → filesystem at the staging path → bind mounts at the target paths, or
// for raw block volumes image → loop device → bind mounts of the device node.
//
// Each call may be repeated, even after a crash in the middle of the previous one. The
// kernel is the source for what is attached and mounted; the store records the
// parameters of each publication.
package stage
