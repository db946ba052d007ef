// Package volume is the store of the driver: the records of volumes and snapshots,
// their image files, and the reserved capacity.
//
// A data directory looks like this:
//
//	storage.json         the ID of this storage, which is part of all other IDs
//	lock                 locked by the one process that uses the directory
//	volumes/vol-….json   a volume's record; it exists if and only if this does
//	volumes/vol-….img    its data, sparse
//	snapshots/snap-….*   the same for snapshots
//	groups/grp-….json    snapshots that were taken together
//	deleted/             deleted IDs of earlier storages
//	published/           target paths of volumes on this machine
//	frozen/              filesystems that are frozen
//
// and where several nodes share it (Options.Shared):
//
//	controller.lock      locked by the one process that creates and deletes volumes
//	locks                each locked byte stands for a volume that a process works on
//	nodes/NODE.json      the nodes that use the directory
//	nodes/NODE.sock      socket for requests to freeze a volume on the node
//	frozen/NODE/         filesystems that the node has frozen
//	attached/vol-….json  the node that the volume is attached to
//	published/NODE/      target paths of volumes on that node
//
// A record is written last when something is created and removed first when it is
// deleted, so a process may die at any point: the directory then has the state
// before or after the call, plus unreferenced files, which Open removes. A group's
// record makes all its members exist at once. The only state in memory is the
// locks and the capacity that calls in progress have reserved.
package volume
