// Package volume is the store of the driver: which volumes and snapshots there
// are, the image file of each, and how much is promised.
//
// A data directory looks like this:
//
//	storage.json         which storage this is; its ID is part of all other IDs
//	lock                 held by the one process that uses the directory
//	volumes/vol-….json   a volume's record; it exists if and only if this does
//	volumes/vol-….img    its data, sparse
//	snapshots/snap-….*   the same for snapshots
//	groups/grp-….json    the snapshots that were taken together
//	deleted/             what was deleted of what an earlier storage had made
//	published/           where volumes are in use on this machine
//	frozen/              filesystems that are held still at the moment
//
// and where several nodes share it (Options.Shared):
//
//	controller.lock      held by the one process that makes and deletes volumes
//	locks                a byte of it stands for a volume that a process is busy with
//	nodes/NODE.json      the nodes that use the directory
//	nodes/NODE.sock      where a node is asked to hold a volume still
//	frozen/NODE/         filesystems that the node holds still
//	attached/vol-….json  the node that has the volume
//	published/NODE/      where volumes are in use on that node
//
// The record is written last when something is made and removed first when it
// goes, so a process may die anywhere: what is left is the state before or the
// state after, plus files that nothing refers to, which Open takes away. A group's
// record is what makes its members exist, all of them at once. Nothing
// is remembered in memory but who holds which lock and what is promised to calls
// that are under way.
package volume
