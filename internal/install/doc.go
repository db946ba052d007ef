// Package install puts the OCI runtime wrapper holdfast-runtime in front of runc or crun on a
// node, and takes it away again.
//
// An installation is one copy of the wrapper and one small JSON file for each handler, and a
// few lines in the configuration of containerd or CRI-O. Files are written first and the
// configuration last, each by a rename, so that a crash leaves either the old or the new
// configuration, and what that one needs.
//
// The lines carry a mark. A line that they replace stays above them as a comment. Without the
// marked lines, and with the comments taken off, the administrator's file is there again byte
// for byte, also if it was edited elsewhere meanwhile: no backup can get out of date. What is
// written is computed from that text each time, so that a second run changes nothing.
//
// Before anything is written, the text is parsed before and after: the difference must be
// exactly the keys that are to be set. The same is done with the configuration as a whole, as
// the version of the runtime merges it from several files.
package install
