// Package archive reads and writes the file that Holdfast stores a checkpoint of a
// container in. docs/reference/archive-format.md specifies the format.
//
// A [Writer] takes the files of a checkpoint in one pass and in constant memory: it leaves
// out pages of zeros, compresses, encrypts if it has a key, and computes the SHA-256 of what
// it writes. A [Reader] treats an archive as hostile input: every length and count is
// limited, and nothing is returned before its checksum was compared. It finds a page by the
// address in the container's memory, and reads no more than the frame in which it lies.
//
// The package knows nothing of Kubernetes and of stores.
package archive
