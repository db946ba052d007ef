package volume

import (
	"errors"
	"time"
)

// The ways in which a call on the store fails. Every error that it returns and
// that is not one of the machine's wraps one of these.
var (
	// ErrInvalid is a request that can never succeed as it is.
	ErrInvalid = errors.New("invalid request")
	// ErrNotFound is a volume or snapshot that does not exist.
	ErrNotFound = errors.New("not found")
	// ErrOtherStorage is something that this data directory does not have and that
	// another one may have: its driver must be asked.
	ErrOtherStorage = errors.New("kept in another storage")
	// ErrSourceInOtherStorage is a volume that can only be made where its source is.
	ErrSourceInOtherStorage = errors.New("its source is in another storage")
	// ErrOutcomeUnknown is a request whose earlier tries another storage may have carried out.
	ErrOutcomeUnknown = errors.New("it is not known whether an earlier try succeeded")
	// ErrExists is a name that is taken by something that differs from what is asked.
	ErrExists = errors.New("exists already and differs")
	// ErrOutOfRange is a size that cannot be had.
	ErrOutOfRange = errors.New("size not possible")
	// ErrOutOfCapacity is a promise that the capacity does not allow.
	ErrOutOfCapacity = errors.New("not enough capacity")
	// ErrInUse is something that must not be done while a workload uses the volume.
	ErrInUse = errors.New("in use")
	// ErrPending is a volume or snapshot that another call is busy with.
	ErrPending = errors.New("another operation is pending")
	// ErrDamaged is a volume or snapshot whose record or image is not what it must be.
	ErrDamaged = errors.New("damaged")
	// ErrNotAttached is a use on a node that the volume is not, or not any more, attached to.
	ErrNotAttached = errors.New("not attached to this node")
	// ErrLocked is a data directory that another process uses.
	ErrLocked = errors.New("data directory in use")
)

// Format tells how far a volume's filesystem is. It is on record before each
// step, so that data is never taken for the remains of an interrupted mkfs.
type Format string

const (
	// Unformatted volumes were never given a filesystem by this driver.
	Unformatted Format = ""
	// Formatting volumes never held data: mkfs may be done on them again.
	Formatting Format = "formatting"
	// Formatted volumes have a filesystem, whatever their first bytes say.
	Formatted Format = "formatted"
)

// Access says through which interfaces a volume may be used.
type Access struct {
	// Mount is use as a filesystem.
	Mount bool `json:"mount,omitempty"`
	// Block is use as a raw device.
	Block bool `json:"block,omitempty"`
}

// SourceKind tells what a volume's first content came from.
type SourceKind string

// The two kinds of source.
const (
	FromVolume   SourceKind = "volume"
	FromSnapshot SourceKind = "snapshot"
)

// Source is where a volume's first content came from.
type Source struct {
	Kind SourceKind `json:"kind"`
	ID   string     `json:"id"`
}

// Volume is a volume as it is on record.
type Volume struct {
	// ID is derived from Name and the storage, and safe to be part of a path.
	ID string `json:"id"`
	// Name is what the caller called it, at most 128 bytes.
	Name string `json:"name"`
	// Size is in bytes and a multiple of Step.
	Size int64 `json:"size"`
	// Growing is the size that an expansion is on its way to, 0 for none.
	Growing int64 `json:"growing,omitempty"`
	// Access is fixed when the volume is made.
	Access Access `json:"access"`
	// FSType is the filesystem for Access.Mount, "" for volumes without.
	FSType string `json:"fsType,omitempty"`
	// Format tells how far the filesystem is.
	Format Format `json:"format,omitempty"`
	// Source is nil for volumes that began empty.
	Source *Source `json:"source,omitempty"`
	// Shared is true when the image began by sharing its source's blocks.
	Shared bool `json:"shared,omitempty"`
	// Created is when the record was written, in UTC.
	Created time.Time `json:"created"`
}

// promised is what the volume may come to occupy.
func (v Volume) promised() int64 {
	return max(v.Size, v.Growing)
}

// Snapshot is a snapshot as it is on record. It does not depend on its volume.
type Snapshot struct {
	// ID is derived from Name and the storage, and safe to be part of a path.
	ID string `json:"id"`
	// Name is what the caller called it, at most 128 bytes.
	Name string `json:"name"`
	// VolumeID is the volume it was taken of, which may be gone.
	VolumeID string `json:"volumeId"`
	// GroupID is the group that it was taken with and goes with, "" for none. It
	// exists if the group does; its name is the group's.
	GroupID string `json:"groupId,omitempty"`
	// Size is the volume's size at that moment, in bytes.
	Size int64 `json:"size"`
	// FSType and Format are the volume's at that moment.
	FSType string `json:"fsType,omitempty"`
	Format Format `json:"format,omitempty"`
	// Shared is true when the image began by sharing the volume's blocks.
	Shared bool `json:"shared,omitempty"`
	// Created is the moment whose state it holds, in UTC.
	Created time.Time `json:"created"`
}

// Group is a set of snapshots of one moment as it is on record.
type Group struct {
	// ID is derived from Name and the storage, and safe to be part of a path.
	ID string `json:"id"`
	// Name is what the caller called it, at most 128 bytes.
	Name string `json:"name"`
	// VolumeIDs are the volumes that its members were taken of, in the order of the
	// request. The IDs of the members follow from them.
	VolumeIDs []string `json:"volumeIds"`
	// Created is the moment whose state the members hold, in UTC.
	Created time.Time `json:"created"`
}

// Spec is what is asked of a new volume.
type Spec struct {
	// Name makes the request repeatable: one name, one volume.
	Name string
	// Range is the size asked for.
	Range Range
	// Access and FSType are as in Volume.
	Access Access
	FSType string
	// Source is nil for an empty volume.
	Source *Source
}
