// Package capacity tells the scheduler where there is room for volumes:
// StorageClass × topology segment → GetCapacity → CSIStorageCapacity.
//
//	nodes, CSINodes ──▶ segments ─┐
//	                              ├─▶ pairs ──▶ GetCapacity ──▶ one object each
//	StorageClasses ───────────────┘
//
// What is worked on is a pair of a class and a segment, by value, so that
// however often one is asked for it is in the queue once. A pair is looked at
// when its class or its segment comes or goes, when a volume near it comes,
// goes or grows, when a volume has found no room there, when its object is
// deleted, and once in every poll interval, each at a time of its own.
//
// Nothing is written unless it says something new, and an object that nobody
// needs any more goes. Objects carry the labels of the csi-provisioner whose
// role this is, so that either takes over the other's.
package capacity
